"""Keeps the order of the data over a restart.

Kohya's loader draws an epoch's permutation from the global generator, whose state at the epoch's start is gone after a
restart, and tells a worker's dataset of the new epoch only after the worker's first batch of it. Here the permutation
follows from seed and epoch, and the dataset is told before. Sources: train_network.py and library/train_util.py of
sd-scripts 2e0fcc5; torch.utils.data.sampler; accelerate's checkpointing.py.
"""

from collections.abc import Iterator
from typing import Any

# Apart for epochs of one seed, and for the next seeds' first epochs.
SEEDS_APART = 1_000_003


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
        generator.manual_seed(int(datasets[0].seed or 0) * SEEDS_APART + int(shared["epoch"].value))
        yield from torch.randperm(len(self.data_source), generator=generator).tolist()

    sampler.__iter__ = by_seed_and_epoch
    _keep_numbers_when_a_loader_begins(torch)


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
