"""What of a failure SageMaker shows, and what stands behind it."""

from pathlib import Path

from kohya_trainer.errors import InvalidConfigurationError
from kohya_trainer.failure_file import EARLIER, LINES_KEPT, LONGEST_CAUSE, SHOWN, write_failure


def written(path: Path, error: InvalidConfigurationError, lines: list[str]) -> str:
    write_failure(path / "output" / "failure", error, lines)
    return (path / "output" / "failure").read_text(encoding="utf-8")


def test_the_file_begins_with_cause_and_remedy_within_what_sagemaker_shows(tmp_path: Path) -> None:
    text = written(tmp_path, InvalidConfigurationError("c" * 5000, "r" * 5000), ["the last line"])

    assert text[:SHOWN].splitlines()[:2] == ["c" * LONGEST_CAUSE, f"Remedy: {'r' * LONGEST_CAUSE}"]
    assert len("AlgorithmError: ") + SHOWN + len(", exit code: 1") == 1024


def test_sagemaker_shows_the_newest_of_the_last_lines(tmp_path: Path) -> None:
    lines = [f"line {number:02} {'x' * 60}" for number in range(100)]

    text = written(tmp_path, InvalidConfigurationError("It broke.", "Mend it."), lines)

    shown, earlier = text.split(f"\n{EARLIER}\n")
    assert shown.startswith("It broke.\nRemedy: Mend it.\n\n")
    newest = shown.splitlines()[3:]
    assert newest == lines[-len(newest) :]
    assert SHOWN - 70 < len(shown) <= SHOWN
    assert [*earlier.splitlines(), *newest] == lines[-LINES_KEPT:]


def test_few_lines_stand_as_they_came_and_an_endless_one_is_cut(tmp_path: Path) -> None:
    error = InvalidConfigurationError("It broke.", "Mend it.")

    assert written(tmp_path, error, ["a", "", "b"]) == "It broke.\nRemedy: Mend it.\n\na\nb\n"
    assert written(tmp_path, error, []) == "It broke.\nRemedy: Mend it.\n"
    endless = written(tmp_path, error, ["a", "b" * 4000])
    assert "bbb…\n" in endless[: SHOWN + 1]
    assert endless.endswith(f"\n{EARLIER}\na\n{'b' * 4000}\n")


def test_a_cause_of_several_lines_is_one_sentence(tmp_path: Path) -> None:
    text = written(tmp_path, InvalidConfigurationError("It\n  broke.", "Mend\nit."), [])

    assert text == "It broke.\nRemedy: Mend it.\n"
