"""Keeps the order of the data, and the random numbers, over a restart: used inside the trainer's process alone.

Kohya's loader draws an epoch's permutation from the global generator, whose state at the epoch's start is gone after a
restart, and tells a worker's dataset of the new epoch only after the worker's first batch of it. Here the permutation
follows from seed and epoch, and the dataset is told before. Sources: train_network.py and library/train_util.py of
sd-scripts 2e0fcc5; torch.utils.data.sampler; accelerate's checkpointing.py.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

# Apart for epochs of one seed, and for the next seeds' first epochs.
_SEEDS_APART = 1_000_003


def keep_order(train_util: Any, torch: Any) -> None:
    """Permutations by seed and epoch, and the names of a batch's files in the batch, as "image_keys"."""
    shared: dict[str, Any] = {}
    _remember_epoch(train_util.collator_class, shared)
    _tell_epoch_before_the_batch(train_util.DatasetGroup, shared)
    _name_files(train_util.BaseDataset)
    sampler = torch.utils.data.RandomSampler
    drawn = sampler.__iter__

    def by_seed_and_epoch(self: Any) -> Iterator[int]:
        datasets = getattr(self.data_source, "datasets", None)
        if not shared or not datasets or not hasattr(self.data_source, "set_current_epoch"):
            yield from drawn(self)
            return
        generator = torch.Generator()
        generator.manual_seed(int(datasets[0].seed or 0) * _SEEDS_APART + int(shared["epoch"].value))
        yield from torch.randperm(len(self.data_source), generator=generator).tolist()

    sampler.__iter__ = by_seed_and_epoch
    _keep_numbers_when_a_loader_begins(torch)


def gathered_random_states(torch: Any, accelerator: Any) -> list[dict[str, Any]]:
    """Of all processes, which must all ask for them: accelerate saves those of the one that saves, the main one."""
    if accelerator.num_processes == 1:
        return []
    gathered: list[Any] = [None] * int(accelerator.num_processes)
    torch.distributed.all_gather_object(gathered, _random_state(torch))
    return gathered


def write_random_states(torch: Any, state: Path, gathered: Sequence[Mapping[str, Any]]) -> None:
    """Those of the other processes, beside accelerate's own file and in its form."""
    for index, numbers in enumerate(gathered[1:], 1):
        torch.save(numbers, _file(state, index))


def restore_random_state(torch: Any, state: Path, process_index: int, step: int) -> None:
    """What was saved. accelerate's own loader fails without a word where torch.load refuses pickles (torch ≥ 2.6).

    A process without a file gets numbers that differ from the others' and from those seen before.
    """
    file = _file(state, process_index)
    if not file.is_file():
        torch.manual_seed(_SEEDS_APART * step + process_index)
        return
    import numpy

    # Written by this very run and checked by its digest before the trainer was started.
    states = torch.load(file, map_location="cpu", weights_only=False)
    random.setstate(states["random_state"])
    numpy.random.set_state(states["numpy_random_seed"])
    torch.set_rng_state(states["torch_manual_seed"])
    if torch.cuda.is_available():
        on_gpus, own = states["torch_cuda_manual_seed"], torch.cuda.current_device()
        # A process has numbers on its own GPU alone; accelerate saves those of all that it sees.
        if own < len(on_gpus) and on_gpus[own] is not None:
            torch.cuda.set_rng_state(on_gpus[own])


def _random_state(torch: Any) -> dict[str, Any]:
    import numpy

    on_gpus: list[Any] = []
    if torch.cuda.is_available():
        on_gpus = [None] * torch.cuda.device_count()
        on_gpus[torch.cuda.current_device()] = torch.cuda.get_rng_state()
    return {
        "random_state": random.getstate(),
        "numpy_random_seed": numpy.random.get_state(),
        "torch_manual_seed": torch.get_rng_state(),
        "torch_cuda_manual_seed": on_gpus,
    }


def _file(state: Path, process_index: int) -> Path:
    return state / f"random_states_{process_index}.pkl"


def before_first_batch(accelerator: Any, act: Callable[[], None]) -> None:
    """Calls `act` once, when the loader has begun and the first batch is about to be used."""
    accumulate = accelerator.accumulate

    def once(*models: Any) -> AbstractContextManager[Any]:
        accelerator.accumulate = accumulate
        act()
        context: AbstractContextManager[Any] = accumulate(*models)
        return context

    accelerator.accumulate = once


def _keep_numbers_when_a_loader_begins(torch: Any) -> None:
    """A loader's new iterator draws its workers' seed from the numbers that the noise is drawn from. A restart makes
    one more iterator than an uninterrupted run with persistent workers, which would shift all that follows.
    """
    iterator = torch.utils.data.dataloader._BaseDataLoaderIter
    begin = iterator.__init__

    def begun(self: Any, loader: Any) -> None:
        state = torch.get_rng_state()
        begin(self, loader)
        torch.set_rng_state(state)

    iterator.__init__ = begun


def _remember_epoch(collator: Any, shared: dict[str, Any]) -> None:
    begin = collator.__init__

    def remembered(self: Any, epoch: Any, step: Any, dataset: Any) -> None:
        begin(self, epoch, step, dataset)
        shared["epoch"] = epoch

    collator.__init__ = remembered


def _tell_epoch_before_the_batch(group: Any, shared: dict[str, Any]) -> None:
    get = group.__getitem__

    def told(self: Any, index: int) -> Any:
        # While latents are cached there is no epoch yet.
        if shared and shared["epoch"].value:
            self.set_current_epoch(shared["epoch"].value)
        return get(self, index)

    group.__getitem__ = told


def _name_files(dataset: Any) -> None:
    get = dataset.__getitem__

    def named(self: Any, index: int) -> Any:
        example = get(self, index)
        if self.caching_mode is None:
            place = self.buckets_indices[index]
            first = place.batch_index * place.bucket_batch_size
            bucket = self.bucket_manager.buckets[place.bucket_index]
            example["image_keys"] = list(bucket[first : first + place.bucket_batch_size])
        return example

    dataset.__getitem__ = named
