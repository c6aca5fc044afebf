"""A function's forward and backward pass as CUDA graphs: thousands of kernels are launched by two calls.

Python takes 0.4 s to launch the kernels of one step of the U-Net, whatever the batch; a GPU is through with four images
in 0.17 s. One pair of graphs is recorded for each shape of the inputs, when it first comes. All share one pool of
memory, which holds the activations of the largest.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Function = Callable[..., torch.Tensor]
# The same kernels on the same numbers; those that add up in no fixed order differ in the last digits.
MOST_DIFFERENCE = 0.02


@dataclass
class _Pair:
    inputs: list[torch.Tensor]
    out: torch.Tensor
    of_out: torch.Tensor
    forward: Any
    backward: Any
    run: int = 0


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graphs: "Graphs", pair: _Pair, *given: torch.Tensor) -> torch.Tensor:
        graphs.runs += 1
        ctx.graphs, ctx.pair, ctx.run, ctx.inputs = graphs, pair, graphs.runs, len(pair.inputs)
        torch._foreach_copy_(pair.inputs, list(given[: ctx.inputs]))
        pair.forward.replay()
        return pair.out.clone()

    @staticmethod
    def backward(ctx: Any, of_out: torch.Tensor) -> tuple[Any, ...]:
        if ctx.run != ctx.graphs.runs:
            raise RuntimeError("another forward pass came before this backward pass and took its memory")
        ctx.pair.of_out.copy_(of_out)
        ctx.pair.backward.replay()
        # Copies: the trainer may add up gradients of several batches.
        gradients = [torch.empty_like(gradient) for gradient in ctx.graphs.gradients]
        torch._foreach_copy_(gradients, ctx.graphs.gradients)
        return (None, None, *[None] * ctx.inputs, *gradients)


class Graphs:
    """Calls `function`(*inputs, weights) through pairs of graphs.

    Only the weights, which are the `parameters`, have gradients; inputs have the batch as first dimension.
    """

    def __init__(self, function: Function, parameters: Sequence[torch.Tensor]) -> None:
        self.function, self.parameters = function, list(parameters)
        self.gradients: list[torch.Tensor] = []
        self.pairs: dict[Any, _Pair] = {}
        self.runs = 0
        self._pool: Any = None
        self._places: tuple[int, int] = (0, 0)

    def pair(self, key: Any, *inputs: torch.Tensor) -> _Pair:
        """Recorded when its shape first comes. `key`: whatever else the recorded kernels depend on."""
        places = (self.parameters[0].data_ptr(), self.parameters[-1].data_ptr())
        if places != self._places:  # recorded kernels read the parameters where they were
            self.clear()
            self._places = places
        shapes = (key, *((tuple(value.shape), value.dtype) for value in inputs))
        if shapes not in self.pairs:
            self.pairs[shapes] = self._record(inputs)
        return self.pairs[shapes]

    def replay(self, pair: _Pair, *inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _Replay.apply(self, pair, *inputs, *self.parameters)
        return out

    def clear(self) -> None:
        self.pairs, self._pool, self.gradients = {}, None, []

    def _record(self, inputs: Sequence[torch.Tensor]) -> _Pair:
        first = self._pool is None
        # Once without recording: libraries choose kernels and Triton compiles. The first time with all images; later
        # with one, because the pool holds memory already.
        expected = self._rehearsed([value.clone() if first else value[:1].clone() for value in inputs])
        if not self.gradients:
            self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        generator = torch.cuda.default_generators[inputs[0].device.index]
        numbers = generator.clone_state()
        try:
            pair = self._captured([value.detach().clone() for value in inputs])
        except BaseException:
            # A capture that broke off leaves the generator unusable for the noise of the next batch.
            generator.graphsafe_set_state(numbers)
            raise
        if first:
            pair.forward.replay()
            pair.backward.replay()
            if (far := difference([pair.out, *self.gradients], expected)) > MOST_DIFFERENCE:
                raise RuntimeError(f"what was recorded differs by {far:.1%} from what is launched")
        return pair

    def _captured(self, static: list[torch.Tensor]) -> _Pair:
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        weights = self._weights()
        with torch.cuda.graph(forward, pool=self._pool, capture_error_mode="thread_local"):
            out = self.function(*static, weights)
        self._pool = self._pool or forward.pool()
        of_out = torch.ones_like(out)
        with torch.cuda.graph(backward, pool=self._pool, capture_error_mode="thread_local"):
            torch._foreach_copy_(self.gradients, list(torch.autograd.grad(out, weights, of_out)))
        return _Pair(static, out.detach(), of_out, forward, backward)

    def _rehearsed(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The result, and the gradients where the result's own are 1."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            weights = self._weights()
            out = self.function(*inputs, weights)
            found = [out.detach(), *torch.autograd.grad(out, weights, torch.ones_like(out))]
        torch.cuda.current_stream().wait_stream(aside)
        del out
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        return found

    def _weights(self) -> list[torch.Tensor]:
        """The parameters' own memory under names that autograd has not seen: it would go back to the stream on which
        it first met a parameter, which is none that records.
        """
        return [parameter.detach().requires_grad_(True) for parameter in self.parameters]


def difference(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest of: of the first tensor, and of all the others together, ‖got − expected‖ / ‖expected‖."""
    parts = ((got[:1], expected[:1]), (got[1:], expected[1:]))
    return max(_distance(one, two) for one, two in parts if one)


def _distance(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    apart = torch._foreach_norm(torch._foreach_sub(list(got), list(expected)))
    norms = torch._foreach_norm(list(expected))
    return float(torch.stack(apart).float().norm() / torch.stack(norms).float().norm())
