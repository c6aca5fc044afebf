"""The fast U-Net against the trainer's own, on a small one of its classes, and the gradients of two processes.

Needs torch and kohya_ss v25.2.2 in KOHYA_HOME: `./dev test-image` runs it in the image that it has built, elsewhere it
is skipped. The kernels are run where there is Triton, by its interpreter.
"""

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kohya_trainer
from kohya_trainer.command import entry_point

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
torch = pytest.importorskip("torch")
KOHYA_HOME = os.environ.get("KOHYA_HOME")
# What these compare with is Kohya's own code, and only an image has it: there they must run (tests/image).
needs_trainer = pytest.mark.skipif(not KOHYA_HOME, reason="KOHYA_HOME is not set")
# Triton comes with torch for CUDA alone.
needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="there is no Triton")


def difference(got: Any, expected: Any) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """Builds a U-Net a tenth as wide, and its LoRA with weights that do something."""
    monkeypatch.setattr(sys, "path", [str(entry_point(Path(str(KOHYA_HOME))).parent), *sys.path])
    from library import sdxl_original_unet
    from networks.lora import LoRANetwork

    for name, value in {"MODEL_CHANNELS": 32, "TIME_EMBED_DIM": 128, "ADM_IN_CHANNELS": 64}.items():
        monkeypatch.setattr(sdxl_original_unet, name, value)

    def build(dtype: Any = torch.float32) -> tuple[Any, Any]:
        torch.manual_seed(0)
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
        unet.set_use_sdpa(True)
        unet.requires_grad_(False).to(dtype).eval()
        network = LoRANetwork([], unet, lora_dim=4, alpha=2, is_sdxl=True)
        network.apply_to([], unet, False, True)
        for adapter in network.unet_loras:
            torch.nn.init.normal_(adapter.lora_up.weight, std=0.02)
        network.requires_grad_(True).train()
        return unet, network

    return build


def gradients(forward: Any, network: Any, dtype: Any = torch.float32, seed: int = 1) -> Any:
    random = torch.Generator().manual_seed(seed)
    x, context, y = (
        torch.randn(*shape, generator=random).to(dtype) for shape in ((2, 4, 16, 16), (2, 77, 2048), (2, 64))
    )
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        out = forward(x.requires_grad_(True), torch.tensor([10, 500]), context, y)
    (out.float() ** 2).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@needs_trainer
@pytest.mark.parametrize("again", [0.0, 0.5, 1.0])
def test_gradients_are_the_trainers(trainer: Any, again: float) -> None:
    from kohya_trainer.acceleration.unet import FastUNet

    unet, network = trainer()
    expected = gradients(unet.forward, network)
    fast = FastUNet(unet, network.unet_loras, again)
    assert difference(gradients(fast, network), expected) < 1e-4
    fast.restore()
    assert difference(gradients(unet.forward, network), expected) == 0


@needs_trainer
def test_a_first_pass_beside_the_encoding_leaves_nothing_behind(trainer: Any) -> None:
    from kohya_trainer.acceleration.while_caching import first_pass

    unet, _ = trainer()
    unet.requires_grad_(True)  # as the trainer's loader leaves it
    numbers = torch.get_rng_state()

    first_pass(unet, "cpu", torch.float32)

    assert all(parameter.grad is None for parameter in unet.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)


def stood_in(unet: Any, network: Any, make: Callable[[], Any]) -> list[str]:
    """What is said once the first batch has been."""
    from kohya_trainer.acceleration.comparison import stand_in

    said: list[str] = []
    stand_in(unet, network.unet_loras, make, said.append)
    gradients(unet.forward, network)
    return said


@needs_trainer
def test_the_fast_one_takes_over_when_its_answers_are_the_trainers(trainer: Any) -> None:
    from kohya_trainer.acceleration.unet import FastUNet

    unet, network = trainer()
    expected = gradients(unet.forward, network)
    said = stood_in(unet, network, lambda: FastUNet(unet, network.unet_loras))
    assert len(said) == 1
    assert said[0].startswith("fast U-Net: 722 adapters")
    assert 0 < difference(gradients(unet.forward, network), expected) < 1e-4


@needs_trainer
@pytest.mark.parametrize("fault", ["wrong", "broken", "not finite"])
def test_a_fast_one_that_is_wrong_leaves_the_trainers_as_it_was(trainer: Any, fault: str) -> None:
    from kohya_trainer.acceleration.unet import FastUNet

    class Faulty(FastUNet):
        def launch(self, *given: Any) -> Any:
            if fault == "broken":
                raise RuntimeError("no kernel")
            return super().launch(*given) * (1.2 if fault == "wrong" else float("nan"))

    unet, network = trainer()
    expected = gradients(unet.forward, network)
    said = stood_in(unet, network, lambda: Faulty(unet, network.unet_loras))
    assert len(said) == 1
    assert said[0].startswith("not used, because it")
    assert difference(gradients(unet.forward, network), expected) == 0


@needs_trainer
def test_in_bf16_it_is_no_further_from_fp32_than_the_trainer_is(trainer: Any) -> None:
    from kohya_trainer.acceleration.unet import FastUNet

    trainers, ours = 0.0, 0.0
    for seed in range(4):  # of one batch's rounding either may have the luck
        unet, network = trainer()
        exact = gradients(unet.forward, network, seed=seed)
        unet, network = trainer(torch.bfloat16)
        trainers += difference(gradients(unet.forward, network, torch.bfloat16, seed), exact)
        fast = FastUNet(unet, network.unet_loras)
        ours += difference(gradients(fast, network, torch.bfloat16, seed), exact)
    assert ours < 1.1 * trainers


def _adapted(dtype: Any, folded: bool) -> list[Any]:
    """Result and gradients of one adapter as a training begins: alpha 1, rank 256, `up` hardly off zero. The layer's
    own weights are nothing, so that the adapter's share is seen; gradients are as large as a loss in fp16 is scaled.
    """
    from kohya_trainer.acceleration import adapters

    random = torch.Generator().manual_seed(5)
    x, down, up, given = (
        scale * torch.randn(*shape, generator=random)
        for scale, shape in ((100.0, (3, 40, 64)), (0.1, (256, 64)), (1e-5, (48, 256)), (1024.0, (3, 40, 48)))
    )
    layer = torch.nn.Linear(64, 48, bias=False).to(dtype).requires_grad_(False)
    layer.weight.zero_()
    adapter = torch.nn.Module()
    adapter.lora_down, adapter.lora_up = (
        torch.nn.Linear(64, 256, bias=False),
        torch.nn.Linear(256, 48, bias=False),
    )
    adapter.lora_down.weight.data, adapter.lora_up.weight.data = down, up
    adapter.multiplier, adapter.scale, adapter.org_forward = 1.0, 1 / 256, layer.forward
    x = x.to(dtype).requires_grad_(True)
    weights = adapters.weights_of([adapter])
    if folded:
        adapters.fold([adapter])
        adapters.cast([adapter], weights, dtype)
        out = layer(x)
    else:  # LoRAModule.forward under autocast
        inner = torch.nn.functional.linear(x, weights[0].to(dtype))
        out = (
            layer(x)
            + torch.nn.functional.linear(inner, weights[1].to(dtype)) * adapter.multiplier * adapter.scale
        )
    out.backward(given.to(dtype))
    return [part.detach().double() for part in (out, x.grad, *(weight.grad for weight in weights))]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_small_adapter_is_as_exact_as_the_trainers_in_every_precision(precision: str) -> None:
    exact = _adapted(torch.float64, folded=False)
    ours, trainers = (_adapted(getattr(torch, precision), folded) for folded in (True, False))

    for got, theirs, expected in zip(ours, trainers, exact, strict=True):
        assert difference(got, expected) < 1.1 * difference(theirs, expected) + 1e-6


@needs_trainer
def test_the_code_that_is_replaced_is_the_known_one(trainer: Any) -> None:
    from kohya_trainer.acceleration.trainer import KNOWN_SOURCES, adapters_of, sources

    unet, _ = trainer()
    assert len(adapters_of(unet)) == 722
    assert sources(unet, adapters_of(unet)) in KNOWN_SOURCES


@needs_triton
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_the_group_norm_kernel(monkeypatch: pytest.MonkeyPatch, silu: bool, shifted: bool) -> None:
    norm = torch.nn.GroupNorm(32, 160).requires_grad_(False)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (torch.randn(2, 160, 17, 20) + 0.5).contiguous(memory_format=torch.channels_last)
    shift = torch.randn(2, 160) if shifted else None
    _same(monkeypatch, lambda operations, value: operations.group_norm(value, shift, norm, silu), x)


@needs_triton
def test_the_geglu_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    _same(monkeypatch, lambda operations, value: operations.geglu(value), torch.randn(3, 5, 80))


@needs_triton
def test_the_layer_norm_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = torch.nn.LayerNorm(80).requires_grad_(False)
    torch.nn.init.normal_(norm.weight)
    update = torch.randn(2, 7, 80)
    _same(
        monkeypatch,
        lambda operations, value: sum(operations.add_norm(value, update, norm)),
        torch.randn(2, 7, 80),
    )


def _same(monkeypatch: pytest.MonkeyPatch, function: Callable[[Any, Any], Any], x: Any) -> None:
    """Result and gradient with the kernel, interpreted, and with torch's own operations."""
    from kohya_trainer.acceleration import operations

    found = []
    for interpreted in (False, True):
        monkeypatch.setattr(operations, "WITHOUT_GPU", interpreted)
        value = x.clone().requires_grad_(True)
        out = function(operations, value)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        (out * weights).sum().backward()
        found.append((out.detach(), value.grad))
    for expected, got in zip(*found, strict=True):
        assert difference(got, expected) < 1e-5


@needs_triton
def test_the_kernels_can_all_be_compiled_before_there_is_a_unet() -> None:
    from kohya_trainer.acceleration.kernels.compile_all import compile_all

    compile_all(torch.float32, "cpu")


# One of two processes: the trainer's own way of reducing and ours, on two copies of the same gradients.
REDUCING = """
import copy, os, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from kohya_trainer.acceleration.gradients import all_reduce_network
from kohya_trainer.command import entry_point
sys.path.insert(0, str(entry_point(Path(os.environ["KOHYA_HOME"])).parent))
import train_network

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
torch.manual_seed(0)
ours = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 7), torch.nn.Linear(7, 2))
theirs = copy.deepcopy(ours)
torch.manual_seed(accelerator.process_index + 1)
for one, other in zip(ours.parameters(), theirs.parameters()):
    if one.shape != (7,):  # a parameter that did not learn
        one.grad = torch.randn(one.shape)
        other.grad = one.grad.clone()
own = [None if each.grad is None else each.grad.clone() for each in ours.parameters()]
all_reduce_network(None, accelerator, ours)
train_network.NetworkTrainer.all_reduce_network(None, accelerator, theirs)
for before, one, other in zip(own, ours.parameters(), theirs.parameters()):
    assert (one.grad is None) == (other.grad is None) == (before is None)
    if before is not None:
        assert torch.equal(one.grad, other.grad)
        assert not torch.equal(one.grad, before)
print("reduced alike")
"""


@needs_trainer
def test_two_processes_have_the_gradients_that_the_trainer_would_give_them(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    common["PYTHONPATH"] = str(Path(kohya_trainer.__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REDUCING],
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [process.communicate(timeout=240)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], told
    assert all("reduced alike" in text for text in told)
