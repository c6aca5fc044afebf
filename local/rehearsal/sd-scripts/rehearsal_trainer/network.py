"""A small denoiser whose frozen layers are random and whose low-rank matrices are trained, with its
gradient by hand.

A token is a patch of 8×8 latents of 4 channels (256 numbers). h0 = (token · IN + time and caption) is
changed by one residual layer a LoRA module, h ← h + tanh(h·W + s·(h·downᵀ)·upᵀ), and read out with INᵀ,
so that the untrained network already passes the noisy token through; what is left to learn is the
dataset's own structure, which is of low rank.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rehearsal_trainer.dataset import CAPTION_SIZE

Array = NDArray[np.float32]
PATCH = 8
CHANNELS = 4
TOKEN_SIZE = PATCH * PATCH * CHANNELS
WIDTH = 640  # of SDXL's attention in input_blocks_4
TIME_SIZE = 16
# Modules of SDXL's U-Net whose matrices are really 640×640.
MODULES = tuple(
    f"lora_unet_input_blocks_4_1_transformer_blocks_{block}_attn1_{projection}"
    for block in (0, 1)
    for projection in ("to_q", "to_k", "to_v", "to_out_0")
)
# How strongly the layers act: with it a learning rate of 1e-4 shows within a hundred steps, as it does
# with SDXL.
GAIN = 4.0


@dataclass
class LowRank:
    """down (rank, WIDTH) begins random, up (WIDTH, rank) with zeros, as in networks/lora.py."""

    down: Array
    up: Array


class Network:
    """Frozen layers drawn from a seed of their own (the base model), and one LowRank a module."""

    def __init__(self, rank: int, alpha: float, seed: int) -> None:
        base = np.random.default_rng(20230726)
        rng = np.random.default_rng(seed)
        self.rank, self.alpha = rank, alpha
        self.scale = np.float32(GAIN * alpha / rank)
        self._into = _normal(base, (TOKEN_SIZE, WIDTH), 1 / math.sqrt(TOKEN_SIZE))
        self._condition = _normal(
            base, (TIME_SIZE + CAPTION_SIZE, WIDTH), 0.3 / math.sqrt(TIME_SIZE + CAPTION_SIZE)
        )
        self._frozen = {name: _normal(base, (WIDTH, WIDTH), 0.02 / math.sqrt(WIDTH)) for name in MODULES}
        self._read_out = np.ascontiguousarray(self._into.T) * np.float32(TOKEN_SIZE / WIDTH)
        bound = 1 / math.sqrt(WIDTH)  # kaiming_uniform_(a=√5), Kohya's start of the down-weights
        self.modules = {
            name: LowRank(
                down=rng.uniform(-bound, bound, (rank, WIDTH)).astype(np.float32),
                up=np.zeros((WIDTH, rank), dtype=np.float32),
            )
            for name in MODULES
        }

    def save_weights(self, file: str, dtype: type[np.float16], metadata: dict[str, str]) -> None:
        """As networks/lora.py does it."""
        # A LoRA whose numbers left float16's range is saved by Kohya too, with infinities in it.
        with np.errstate(over="ignore", invalid="ignore"):
            tensors = {name: array.astype(dtype) for name, array in self.parameters().items()}
        for name in self.modules:
            tensors[f"{name}.alpha"] = np.asarray(self.alpha, dtype=dtype)
        save_file(tensors, file, metadata=metadata)

    def parameters(self) -> dict[str, Array]:
        """Name in the LoRA file → trained array, the very object that is updated in place."""
        return {
            f"{name}.lora_{part}.weight": getattr(module, part)
            for name, module in self.modules.items()
            for part in ("down", "up")
        }

    def predict(self, tokens: Array, condition: Array) -> Array:
        """The noise in `tokens` (n, 256) under `condition` (n, 80)."""
        return self._forward(tokens, condition)[0]

    def loss_and_gradients(
        self, tokens: Array, condition: Array, noise: Array
    ) -> tuple[float, dict[str, Array]]:
        """Mean squared error, and its gradient for every array of parameters()."""
        predicted, states = self._forward(tokens, condition)
        error = predicted - noise
        flow = (error * np.float32(2 / error.size)) @ self._read_out.T
        gradients: dict[str, Array] = {}
        for name, (hidden, low, activated) in reversed(list(zip(MODULES, states, strict=True))):
            module = self.modules[name]
            inner = flow * (1 - activated * activated)
            back = inner @ module.up
            gradients[f"{name}.lora_up.weight"] = self.scale * (inner.T @ low)
            gradients[f"{name}.lora_down.weight"] = self.scale * (back.T @ hidden)
            flow = flow + inner @ self._frozen[name].T + self.scale * (back @ module.down)
        return float(np.mean(np.square(error, dtype=np.float64))), gradients

    def _forward(self, tokens: Array, condition: Array) -> tuple[Array, list[tuple[Array, Array, Array]]]:
        hidden = tokens @ self._into + condition @ self._condition
        states = []
        for name, module in self.modules.items():
            low = hidden @ module.down.T
            activated = np.tanh(hidden @ self._frozen[name] + self.scale * (low @ module.up.T))
            states.append((hidden, low, activated))
            hidden = hidden + activated
        return hidden @ self._read_out, states


class AdamW:
    """Decoupled weight decay with Kohya's defaults of torch (betas 0.9 and 0.999, decay 0.01)."""

    def __init__(self, parameters: dict[str, Array], decay: float = 0.01) -> None:
        self._parameters, self._decay = parameters, decay
        self.steps = 0
        # torch's place for the rate, and for what is trained.
        self.param_groups: list[dict[str, Any]] = [{"lr": 0.0, "params": list(parameters.values())}]
        self.moments = {
            name: (np.zeros_like(array), np.zeros_like(array)) for name, array in parameters.items()
        }

    def step(self, gradients: dict[str, Array], rate: float) -> None:
        """Updates the parameters in place."""
        self.steps += 1
        self.param_groups[0]["lr"] = rate
        first_correction, second_correction = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for name, array in self._parameters.items():
            first, second = self.moments[name]
            gradient = gradients[name]
            first += np.float32(0.1) * (gradient - first)
            second += np.float32(0.001) * (gradient * gradient - second)
            change = (first / first_correction) / (np.sqrt(second / second_correction) + 1e-8)
            array -= (rate * (change + self._decay * array)).astype(np.float32)


def clip(gradients: dict[str, Array], most: float) -> None:
    """max_grad_norm: scales all gradients together."""
    norm = math.sqrt(
        sum(float(np.sum(np.square(gradient, dtype=np.float64))) for gradient in gradients.values())
    )
    if most > 0 and norm > most:
        for gradient in gradients.values():
            gradient *= np.float32(most / (norm + 1e-6))


def tokens_of(latent: Array) -> Array:
    """(h, w, 4) → (patches, 256); what does not fill a patch is left out."""
    rows, columns = latent.shape[0] // PATCH, latent.shape[1] // PATCH
    cut = latent[: rows * PATCH, : columns * PATCH]
    return (
        cut.reshape(rows, PATCH, columns, PATCH, CHANNELS).swapaxes(1, 2).reshape(rows * columns, TOKEN_SIZE)
    )


def latent_of(tokens: Array, rows: int, columns: int) -> Array:
    """The inverse of tokens_of."""
    grid = tokens.reshape(rows, columns, PATCH, PATCH, CHANNELS).swapaxes(1, 2)
    return grid.reshape(rows * PATCH, columns * PATCH, CHANNELS)


def time_features(times: Array) -> Array:
    """(n,) in 0…1 → (n, TIME_SIZE) sines and cosines."""
    angles = times[:, None] * (2.0 ** np.arange(TIME_SIZE // 2, dtype=np.float32))[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, int], deviation: float) -> Array:
    return (rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)).astype(np.float32)
