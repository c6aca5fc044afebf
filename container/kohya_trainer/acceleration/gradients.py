"""Gradients of several processes, brought together in one message.

The trainer reduces each parameter's on its own (train_network.py, NetworkTrainer.all_reduce_network): 1,444 messages a
step for a LoRA of the whole U-Net, each of which waits for the one before.
"""

from typing import Any


def all_reduce_network(trainer: Any, accelerator: Any, network: Any) -> None:
    """The mean over all processes, as the trainer's; stands in for its method."""
    import torch

    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if accelerator.num_processes == 1 or not gradients:
        return
    whole = torch._utils._flatten_dense_tensors(gradients)
    torch.distributed.all_reduce(whole)
    whole /= accelerator.num_processes
    torch._foreach_copy_(gradients, torch._utils._unflatten_dense_tensors(whole, gradients))
