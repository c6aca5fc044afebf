"""What needs no encoded pictures, done while the GPU encodes them; and what the trainer does after it for nothing.

As in start_up.py, the trainer does in its own way what fails here.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}
NETWORK = "networks.lora"


class EarlyNetwork:
    """The LoRA's modules, which take the CPU seconds to fill, with the very numbers that the trainer would draw:
    nothing else draws from the CPU's generator meanwhile.
    """

    def __init__(self, create: Callable[..., Any]) -> None:
        self._create = create
        self._arguments: tuple[Any, Any] | None = None
        self._made: Any = None
        self.unet: Any = None
        self._thread = threading.Thread(target=self._work)

    def expect(self, args: Any, loaded: Any) -> None:
        """The trainer's options, and what its loader returns: with them it will ask for its network."""
        if args.network_module != NETWORK or args.dim_from_weights:
            return
        _, first, second, vae, unet, *_ = loaded
        self.unet = unet
        named = {"dropout": args.network_dropout, "neuron_dropout": args.network_dropout}
        named |= dict(pair.split("=") for pair in args.network_args or ())
        given = (1.0, args.network_dim, args.network_alpha, vae, [first, second], unet)
        self._arguments = (given, named)

    def begin(self) -> None:
        """Once is enough: a validation's pictures are encoded, too."""
        if self._arguments and self._thread.ident is None:
            self._thread.start()

    def _work(self) -> None:
        given, named = self._arguments or ((), {})
        try:
            self._made = self._create(*given, **named)
        except Exception as error:  # the trainer makes it again, and tells of its fault
            print(f"acceleration: network not made early ({type(error).__name__}: {error})", flush=True)

    def take(self, *given: Any, **named: Any) -> Any:
        """In place of the trainer's create_network."""
        if self._thread.ident is not None:
            self._thread.join()
        made, self._made = self._made, None
        if made is not None and (given, named) == self._arguments:
            return made
        return self._create(*given, **named)


def make_network_early(lora: Any, sdxl_train_util: Any) -> EarlyNetwork:
    """`lora` is networks.lora, `sdxl_train_util` has the loader."""
    early = EarlyNetwork(lora.create_network)
    load = sdxl_train_util.load_target_model

    @wraps(load)
    def load_target_model(args: Any, *given: Any, **named: Any) -> Any:
        loaded = load(args, *given, **named)
        early.expect(args, loaded)
        return loaded

    sdxl_train_util.load_target_model = load_target_model
    lora.create_network = early.take
    return early


def work_while_caching(train_util: Any, network: EarlyNetwork) -> None:
    """Makes the network and readies the U-Net's kernels, the fast one's and the trainer's own, while the GPU encodes
    pictures.
    """
    cache = train_util.DatasetGroup.new_cache_latents

    @wraps(cache)
    def cached(group: Any, model: Any, accelerator: Any) -> None:
        if accelerator.device.type != "cuda":
            cache(group, model, accelerator)
            return
        dtype = DTYPES.get(accelerator.mixed_precision, "float32")
        readying = threading.Thread(target=_ready, args=(network.unet, accelerator.device, dtype))
        readying.start()
        network.begin()
        try:
            cache(group, model, accelerator)
        finally:
            readying.join()

    train_util.DatasetGroup.new_cache_latents = cached


def _ready(unet: Any, device: Any, dtype: str) -> None:
    try:
        import torch

        from kohya_trainer.acceleration.kernels.compile_all import compile_all

        with torch.cuda.device(device):
            compile_all(getattr(torch, dtype), device)
            if unet is not None and next(unet.parameters()).device.type == "cuda":
                first_pass(unet, device, getattr(torch, dtype))
    except Exception as error:  # they are asked again before anything rests on them
        print(f"acceleration: kernels not made ready early ({type(error).__name__}: {error})", flush=True)


def first_pass(unet: Any, device: Any, dtype: Any) -> None:
    """Forwards and backwards through the trainer's own U-Net, as the comparison with the fast one will ask for it: what
    libraries choose and load for that takes four seconds the first time. Leaves no gradients and draws no numbers.
    """
    import torch

    from kohya_trainer.acceleration.comparison import SIDE

    shapes = ((1, 4, SIDE, SIDE), (1, 77, 2048), (1, unet.adm_in_channels))
    latents, text, sizes = (torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)
    latents.requires_grad_(True)
    with torch.autocast(device_type=latents.device.type, dtype=dtype, enabled=dtype != torch.float32):
        out = unet(latents, torch.zeros(1, dtype=torch.long, device=device), text, sizes)
    torch.autograd.grad(out.float().sum(), latents)


def release_text_encoders(train_util: Any) -> None:
    """Once their outputs are cached the trainer copies them to the CPU's memory, 3.3 GB in fp32. For a run that needs
    them no more (no samples, no validation) they stay behind as modules without weights.
    """
    cache = train_util.DatasetGroup.new_cache_text_encoder_outputs

    @wraps(cache)
    def cached(group: Any, models: Any, accelerator: Any) -> None:
        cache(group, models, accelerator)
        for model in models:
            model.to = lambda *_, _model=model, **__: _without_weights(_model)

    train_util.DatasetGroup.new_cache_text_encoder_outputs = cached


def _without_weights(model: Any) -> Any:
    del model.to
    return model.to("meta")
