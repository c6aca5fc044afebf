"""Puts the fast U-Net into the trainer, where everything about the trainer is as it was when this was written.

Anything else (another version, another network, another kind of attention) trains as Kohya trains it, and the log says
why. `KOHYA_ACCELERATION` carries the settings; "off" or nothing: it is not used.
{"again": 0.0, "graphs": true, "base_model": a path, "straight": whether that goes straight to the GPU,
"text_encoders_once": whether nobody asks the text encoders after their outputs are cached}
"""

import contextlib
import functools
import hashlib
import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kohya_trainer.acceleration import start_up, while_caching
from kohya_trainer.acceleration.gradients import all_reduce_network

# Over the sources of what the fast U-Net does in its own way; see `sources`. sd-scripts 2e0fcc5 (kohya_ss v25.2.2).
KNOWN_SOURCES = frozenset({"8a267165528b9ed4e4556fa5af31000f2e8724dc42fdd7a0600971a6f69bf3a9"})


# What breaks off while it is recorded can take the run with it; with older versions of torch none was recorded yet.
GRAPHS_SINCE = (2, 11)


def install(settings: str) -> None:
    """Before the trainer's script runs; its folder is the first on sys.path."""
    wanted = json.loads(settings)
    answer = hashed_early(wanted.get("base_model"))
    early = None
    try:
        with start_up.importing():
            if wanted.get("straight"):
                early = start_up.read_early(wanted.get("base_model"))
            import torch
            import train_network
            from library import sdxl_model_util, sdxl_train_util, train_util
            from networks import lora

        hook = train_network.NetworkTrainer.prepare_unet_with_accelerator
        if early:
            start_up.hand_over(early, sdxl_model_util, sdxl_train_util, torch)
        if wanted.get("text_encoders_once"):
            while_caching.release_text_encoders(train_util)
        network = while_caching.make_network_early(lora, sdxl_train_util)
        while_caching.work_while_caching(train_util, network)
    except (ImportError, AttributeError) as error:
        say(f"not for this version of the trainer ({error})")
        if early:
            early.drop()
        return
    train_network.NetworkTrainer.all_reduce_network = all_reduce_network
    calculate = train_util.calculate_sha256
    train_util.calculate_sha256 = lambda filename: answer(filename) or calculate(filename)

    @functools.wraps(hook)
    def prepare_unet(trainer: Any, args: Any, accelerator: Any, unet: Any) -> Any:
        prepared = hook(trainer, args, accelerator, unet)
        try:
            if reason := accelerate(prepared, args, wanted):
                say(f"not used, because {reason}")
        except Exception as error:  # whatever it is, the trainer itself can train
            say(f"not used, because it failed ({type(error).__name__}: {error})")
        return prepared

    train_network.NetworkTrainer.prepare_unet_with_accelerator = prepare_unet


def version_of(text: str) -> tuple[int, ...]:
    """Of "2.11.0+cu130": (2, 11)."""
    return tuple(int(part) for part in text.split(".")[:2])


def say(text: str) -> None:
    print(f"acceleration: {text}", flush=True)


def accelerate(unet: Any, args: Any, settings: dict[str, Any]) -> str | None:
    """Has `unet.forward` replaced at the first batch; or the reason why not."""
    import torch

    from kohya_trainer.acceleration.adapters import unsupported
    from kohya_trainer.acceleration.comparison import stand_in
    from kohya_trainer.acceleration.unet import FastUNet

    adapters = adapters_of(unet)
    dtype = next(unet.parameters()).dtype
    if not torch.cuda.is_available():
        return "there is no GPU"
    if sources(unet, adapters) not in KNOWN_SOURCES:
        return "the trainer's U-Net or LoRA is not the known one"
    if dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"the U-Net is in {dtype}"
    if dtype is torch.float32 and args.mixed_precision != "no":
        return "the U-Net is not in the compute dtype"
    if reason := next((reason for adapter in adapters if (reason := unsupported(adapter))), None):
        return reason
    if not all(part.use_sdpa for part in unet.modules() if type(part).__name__ == "CrossAttention"):
        return "another attention than SDPA was chosen"
    if reason := cannot_compile(dtype):
        return reason
    text_learns = not args.network_train_unet_only

    graphs = settings.get("graphs", True) and version_of(torch.__version__) >= GRAPHS_SINCE
    if not graphs:
        say(f"no CUDA graphs with torch {torch.__version__}")

    def fast() -> FastUNet:
        return FastUNet(unet, adapters, settings["again"], text_learns, graphs, args.train_batch_size)

    stand_in(unet, adapters, fast, say)
    return None


def cannot_compile(dtype: Any) -> str | None:
    """Triton's kernels need a C compiler beside the driver; it is asked before anything rests on them."""
    import torch

    try:
        from kohya_trainer.acceleration.kernels.geglu import Geglu

        Geglu.apply(torch.zeros((1, 64), dtype=dtype, device="cuda"))
    except Exception as error:
        return f"Triton compiles no kernel ({type(error).__name__}: {str(error).splitlines()[:1]})"
    return None


def adapters_of(unet: Any) -> list[Any]:
    """The trainer's LoRA modules, each found as the owner of its layer's `forward`."""
    forwards = [layer.__dict__.get("forward") for layer in unet.modules()]
    owners = [getattr(forward, "__self__", None) for forward in forwards]
    return [owner for owner in owners if hasattr(owner, "org_forward")]


def sources(unet: Any, adapters: list[Any]) -> str:
    """One digest of the code that is replaced."""
    module = inspect.getmodule(type(unet))
    names: list[str] = ["ResnetBlock2D", "BasicTransformerBlock", "CrossAttention", "Transformer2DModel"]
    names += ["GEGLU", "FeedForward", "Upsample2D", "Downsample2D", "GroupNorm32", "get_timestep_embedding"]
    parts: list[Any] = [getattr(module, name) for name in names]
    parts += [type(unet).forward, *({type(adapter).forward for adapter in adapters})]
    return hashlib.sha256("".join(inspect.getsource(part) for part in parts).encode()).hexdigest()


def hashed_early(path: str | None) -> Callable[[str], str | None]:
    """The sha256 of `path`, worked out beside everything else; the trainer waits for it before the first step."""
    found: dict[str, str] = {}

    def work() -> None:
        with contextlib.suppress(OSError), Path(str(path)).open("rb") as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def answer(filename: str) -> str | None:
        if filename == path:
            thread.join()
        return found.get(filename)

    return answer
