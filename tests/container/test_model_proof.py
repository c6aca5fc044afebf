"""What is refused as a model, each by one spoilt detail of a good one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kohya_trainer.errors import UnprovedModelError
from kohya_trainer.lora_modules import NETWORKS, text_encoder_modules, unet_modules
from kohya_trainer.model_proof import prove

OPTIONS = {
    "network_module": "networks.lora",
    "network_dim": 8,
    "network_alpha": 4.0,
    "network_train_unet_only": True,
}
UNET = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
Tensors = dict[str, Any]


def good() -> Tensors:
    rng = np.random.default_rng(0)
    return {
        f"{UNET}.lora_down.weight": rng.standard_normal((8, 64)).astype(np.float16),
        f"{UNET}.lora_up.weight": rng.standard_normal((64, 8)).astype(np.float16),
        f"{UNET}.alpha": np.asarray(4.0, dtype=np.float16),
    }


def written(folder: Path, tensors: Tensors) -> Path:
    path = folder / "cats.safetensors"
    save_file(tensors, path, metadata={"rehearsal": "true"})
    return path


def test_a_trained_lora_is_proved(tmp_path: Path) -> None:
    model = prove(written(tmp_path, good()), OPTIONS)

    assert (model.tensors, model.modules, model.rank) == (3, 1, 8)
    assert model.up_norm > 1
    assert model.metadata == {"rehearsal": "true"}


def named_anew(tensors: Tensors, module: str) -> Tensors:
    return {name.replace(UNET, module): array for name, array in tensors.items()}


def spoil(name: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: change(tensors[name])}


def with_value(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        copy = array.copy()
        copy.flat[3] = value
        return copy

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tensors: {
                name: array if "alpha" in name else np.zeros_like(array) for name, array in tensors.items()
            },
            "zero",
        ),
        (spoil(f"{UNET}.lora_up.weight", np.zeros_like), "up-weights of the model are zero"),
        (
            spoil(f"{UNET}.lora_up.weight", lambda array: np.full(array.shape, 1e-9, np.float32)),
            "hardly moved",
        ),
        (spoil(f"{UNET}.lora_up.weight", with_value(np.nan)), "not finite"),
        (spoil(f"{UNET}.lora_down.weight", with_value(np.inf)), "not finite"),
        (spoil(f"{UNET}.lora_down.weight", lambda array: array[:4].copy()), "rank 4, configured is 8"),
        (spoil(f"{UNET}.alpha", lambda array: np.asarray(8.0, dtype=np.float16)), "is 8, configured is 4"),
        (
            lambda tensors: {name: array for name, array in tensors.items() if "down" not in name},
            "lacks .*to_q.lora_down",
        ),
        (
            lambda tensors: {name: array for name, array in tensors.items() if "alpha" not in name},
            "lacks .*alpha",
        ),
        (lambda tensors: {**tensors, f"{UNET}.dora_scale": np.ones(3)}, "holds .*to_q.dora_scale"),
        (
            lambda tensors: {**tensors, **named_anew(tensors, f"{UNET}_lora")},
            "holds .*_to_q_lora.alpha, which a LoRA of SDXL with these options has not",
        ),
        (
            lambda tensors: {
                **tensors,
                **named_anew(tensors, "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
            },
            "holds lora_te1",
        ),
        (
            lambda tensors: {**tensors, "model.diffusion_model.weight": np.ones(3)},
            "holds model.diffusion_model",
        ),
        (lambda tensors: {}, "no tensors"),
    ],
)
def test_a_spoilt_model_is_refused(tmp_path: Path, change: Callable[[Tensors], Tensors], words: str) -> None:
    with pytest.raises(UnprovedModelError, match=words):
        prove(written(tmp_path, change(good())), OPTIONS)


def whole(modules: set[str]) -> Tensors:
    small = {"lora_down.weight": np.ones((8, 2)), "lora_up.weight": np.ones((2, 8)), "alpha": np.asarray(4.0)}
    return {f"{module}.{part}": array for module in modules for part, array in small.items()}


@pytest.mark.parametrize(
    ("module", "trained", "modules"),
    [
        *((module, {}, unet_modules()) for module in sorted(NETWORKS)),
        (
            "networks.lora",
            {"network_train_text_encoder_only": True, "network_train_unet_only": False},
            text_encoder_modules(),
        ),
        ("networks.lora", {"network_train_unet_only": False}, unet_modules() | text_encoder_modules()),
    ],
)
def test_the_real_trainers_model_has_all_modules_and_no_other(
    tmp_path: Path, module: str, trained: dict[str, bool], modules: set[str]
) -> None:
    options = {**OPTIONS, "network_module": module, **trained}
    path = tmp_path / "cats.safetensors"
    save_file(whole(modules), path)
    assert prove(path, options).modules == len(modules)

    lost = max(modules)
    save_file(whole(modules - {lost}), path)
    with pytest.raises(UnprovedModelError, match=f"lacks 1 modules that it should hold, such as {lost}"):
        prove(path, options)


def test_a_u_net_whose_rate_is_0_need_not_have_moved(tmp_path: Path) -> None:
    """The trainer leaves it out of the optimizer, and saves it as it began (networks/lora.py, "NO LR skipping!")."""
    untrained = {
        name: np.zeros_like(array) if name.endswith("lora_up.weight") else array
        for name, array in whole(unet_modules()).items()
    }
    path = tmp_path / "cats.safetensors"
    save_file({**untrained, **whole(text_encoder_modules())}, path)
    both = {**OPTIONS, "network_train_unet_only": False, "text_encoder_lr": 5e-5}

    assert prove(path, {**both, "unet_lr": 0.0}).modules == 986
    assert prove(path, {**both, "learning_rate": 0.0}).modules == 986
    with pytest.raises(UnprovedModelError, match="hardly moved"):
        prove(path, {**both, "unet_lr": 1e-4})


def test_ranks_by_block_may_leave_blocks_out(tmp_path: Path) -> None:
    path = tmp_path / "cats.safetensors"
    save_file(whole({UNET}), path)

    assert prove(path, {**OPTIONS, "network_args": ["down_lr_weight=0,1,1,1,1,1,1,1,1"]}).modules == 1


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = written(tmp_path, good())
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(UnprovedModelError, match="cannot be opened"):
        prove(path, OPTIONS)


def write_bfloat16(path: Path, tensors: Tensors) -> None:
    """numpy has no bfloat16: the format's length, JSON header and data are written by hand."""
    header: dict[str, Any] = {"__metadata__": {"rehearsal": "true"}}
    data = b""
    for name, values in tensors.items():
        array = np.asarray(values, dtype=np.float32)
        content = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("last", [2.0, np.nan])
def test_bfloat16_is_read_as_the_numbers_it_holds(tmp_path: Path, last: float) -> None:
    up = np.ones((4, 8))
    up[-1, -1] = last
    path = tmp_path / "bfloat16.safetensors"
    named = {"lora_down.weight": np.ones((8, 4)), "lora_up.weight": up, "alpha": 4.0}
    write_bfloat16(path, {f"{UNET}.{name}": values for name, values in named.items()})

    if np.isfinite(last):
        assert prove(path, OPTIONS).up_norm == pytest.approx(np.sqrt(31 + 4))
    else:
        with pytest.raises(UnprovedModelError, match="not finite"):
            prove(path, OPTIONS)


def test_convolutions_have_a_rank_of_their_own(tmp_path: Path) -> None:
    name = "lora_unet_input_blocks_1_0_in_layers_2"
    tensors = good() | {
        f"{name}.lora_down.weight": np.ones((2, 16, 3, 3), dtype=np.float16),
        f"{name}.lora_up.weight": np.ones((16, 2, 1, 1), dtype=np.float16),
        f"{name}.alpha": np.asarray(1.0, dtype=np.float16),
    }
    path = written(tmp_path, tensors)

    assert prove(path, {**OPTIONS, "network_args": ["conv_dim=2", "conv_alpha=1"]}).modules == 2
    with pytest.raises(UnprovedModelError, match="rank 2, configured is 4"):
        prove(path, {**OPTIONS, "network_args": ["conv_dim=4", "conv_alpha=1"]})
