"""Kohya's own training loop (train_network.py) over a network of a few numbers: what test_real_loop.py starts in the
trainer's place. Dataset, loaders, accelerate, LoRA, states, validation and samples are the trainer's; only the models
are replaced.
"""

import sys
from typing import Any

import torch
from library import strategy_base, train_util
from PIL import Image
from train_network import NetworkTrainer, setup_parser


class Small(torch.nn.Module):
    """As the trainer asks of a model."""

    device, dtype = torch.device("cpu"), torch.float32


class Transformer2DModel(torch.nn.Module):
    """A name that networks/lora.py looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in = torch.nn.Linear(3, 3)

    def forward(self, values: Any) -> Any:
        return self.proj_in(values)


class Unet(Small):
    def __init__(self) -> None:
        super().__init__()
        self.block = Transformer2DModel()

    def forward(self, values: Any) -> Any:
        return self.block(values)


class TextEncoder(Small):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(2))


class Tokens(strategy_base.TokenizeStrategy):
    def tokenize(self, text: Any) -> list[Any]:
        return [torch.zeros(1, 77, dtype=torch.long)]


# Of this width a picture has no room.
TOO_WIDE = 4096


class Pipeline:
    """Draws the weights."""

    def __init__(self, unet: Any, **_: Any) -> None:
        self._unet = unet

    def to(self, device: Any) -> None:
        pass

    def __call__(self, width: int, **_: Any) -> Any:
        if width >= TOO_WIDE:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return self._unet(torch.rand(4, 3))

    def latents_to_image(self, latents: Any) -> list[Any]:
        values = (latents.abs() * 1e6).long() % 256
        return [Image.frombytes("RGB", (2, 2), bytes(values.flatten().tolist()))]


class SmallTrainer(NetworkTrainer):  # type: ignore[misc] # Kohya's is not typed
    def load_target_model(self, args: Any, weight_dtype: Any, accelerator: Any) -> tuple[Any, ...]:
        torch.manual_seed(5)
        models = "small", TextEncoder(), Small(), Unet()
        torch.manual_seed(args.seed)
        return models

    def get_tokenize_strategy(self, args: Any) -> Any:
        return Tokens()

    def get_tokenizers(self, strategy: Any) -> list[Any]:
        return [None]

    def process_batch(
        self, batch: Any, text_encoders: Any, unet: Any, *_: Any, is_train: bool = True, **__: Any
    ) -> Any:
        """Noise that must be found in the mean colours; drawn as the trainer draws its own."""
        clean = batch["images"].mean(dim=(2, 3))
        noise = torch.rand_like(clean)
        with torch.set_grad_enabled(is_train):
            return ((unet(clean + noise) - noise) ** 2).mean()

    def sample_images(
        self, accelerator: Any, args: Any, epoch: Any, global_step: int, device: Any, *models: Any
    ) -> None:
        train_util.sample_images_common(Pipeline, accelerator, args, epoch, global_step, device, *models)


if __name__ == "__main__":
    parser = setup_parser()
    arguments = parser.parse_args(sys.argv[1:])
    train_util.verify_command_line_training_args(arguments)
    SmallTrainer().train(train_util.read_config_from_file(arguments, parser))
