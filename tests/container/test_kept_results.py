"""Samples and models in between, kept beside the states."""

from pathlib import Path

from kohya_trainer.kept_results import keep_results


def test_a_model_that_was_still_being_written_is_kept_whole_with_the_next_state(tmp_path: Path) -> None:
    output, kept = tmp_path / "output", tmp_path / "kept"
    output.mkdir()
    (output / "cats-step00000008.safetensors").write_bytes(b"half")
    (output / "cats.safetensors").write_bytes(b"the last")
    keep_results(output, kept, "cats.safetensors")
    (output / "cats-step00000008.safetensors").write_bytes(b"half and half")

    keep_results(output, kept, "cats.safetensors")

    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        "cats-step00000008.safetensors": b"half and half"
    }


def test_what_the_trainer_has_removed_is_not_kept_any_longer(tmp_path: Path) -> None:
    output, kept = tmp_path / "output", tmp_path / "kept"
    output.mkdir()
    model = output / "cats-step00000008.safetensors"
    model.write_bytes(b"model")
    keep_results(output, kept, "cats.safetensors")
    model.unlink()

    keep_results(output, kept, "cats.safetensors")

    assert list(kept.iterdir()) == []
