"""The order of the data and the random numbers over a restart, on a stand-in for torch and, where it is installed, on
torch itself.
"""

import importlib
import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kohya_trainer.hooks import data_order
from kohya_trainer.hooks.loop_follower import LoopFollower, before_each_batch
from kohya_trainer.hooks.random_states import (
    count_batches_anew,
    log_without_drawing,
    restore_random_state,
)
from kohya_trainer.orders import Orders

LENGTH, DRAWN_FOR_A_STEP = 8, 3


def _stand_in() -> Any:
    """torch's names with Python's generator behind them: what the hooks touch behaves as torch's does."""
    numbers = random.Random()

    class Generator(random.Random):
        manual_seed = random.Random.seed

    class RandomSampler:
        def __init__(self, data_source: Any) -> None:
            self.data_source = data_source

        def __iter__(self) -> Iterator[int]:
            seed = numbers.getrandbits(63)  # torch draws the sampler's seed from the numbers that all share
            return iter(randperm(len(self.data_source), generator=Generator(seed)).tolist())

    class BaseIterator:
        def __init__(self, loader: Any) -> None:
            self.base_seed = numbers.getrandbits(63)  # and its workers' seed too
            self._indices = iter(loader.sampler)
            self._dataset = loader.dataset

        def __iter__(self) -> Iterator[Any]:
            return (self._dataset[index] for index in self._indices)

    class DataLoader:
        def __init__(self, dataset: Any, sampler: Any) -> None:
            self.dataset, self.sampler = dataset, sampler

        def __iter__(self) -> Iterator[Any]:
            return iter(BaseIterator(self))

    def randperm(length: int, generator: random.Random) -> Any:
        return np.asarray(generator.sample(range(length), length))

    return SimpleNamespace(
        Generator=Generator,
        randperm=randperm,
        manual_seed=numbers.seed,
        get_rng_state=numbers.getstate,
        set_rng_state=numbers.setstate,
        rand=lambda count: np.asarray([numbers.random() for _ in range(count)]),
        load=lambda path, **_: pickle.loads(path.read_bytes()),  # written by the test
        save=lambda content, path: path.write_bytes(pickle.dumps(content)),
        cuda=SimpleNamespace(is_available=lambda: False),
        utils=SimpleNamespace(
            data=SimpleNamespace(
                RandomSampler=RandomSampler,
                DataLoader=DataLoader,
                dataloader=SimpleNamespace(_BaseDataLoaderIter=BaseIterator),
            )
        ),
    )


@pytest.fixture(params=["stand-in", "torch"])
def torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "stand-in":
        return _stand_in()
    real = pytest.importorskip("torch", reason="torch is in the training image alone; the stand-in is tested")
    # What the hooks change is put back.
    data = importlib.import_module("torch.utils.data")
    iterator = data.dataloader._BaseDataLoaderIter
    monkeypatch.setattr(data.RandomSampler, "__iter__", data.RandomSampler.__iter__)
    monkeypatch.setattr(iterator, "__init__", iterator.__init__)
    return real


class Epoch:
    """Of multiprocessing.Value, which the trainer shares with the workers."""

    value = 0


def _train_util() -> Any:
    """Kohya's classes as far as the hooks know them, whose buckets are shuffled when an epoch is told."""

    class BaseDataset:
        caching_mode = None

        def __init__(self, seed: int) -> None:
            self.seed, self.current_epoch = seed, 0
            self._pictures = [f"{letter}.jpg" for letter in "abcdefgh"]
            self.buckets_indices = [
                SimpleNamespace(bucket_index=0, batch_index=index, bucket_batch_size=1)
                for index in range(LENGTH)
            ]
            self.bucket_manager = SimpleNamespace(buckets=[self._pictures])

        def __len__(self) -> int:
            return LENGTH

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"epoch": self.current_epoch}

    class DatasetGroup:
        def __init__(self, seed: int) -> None:
            self.datasets = [BaseDataset(seed)]

        def __len__(self) -> int:
            return LENGTH

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.datasets[0][index]

        def set_current_epoch(self, epoch: int) -> None:
            self.datasets[0].current_epoch = epoch

    class collator_class:  # noqa: N801 # Kohya's name
        def __init__(self, epoch: Any, step: Any, dataset: Any) -> None:
            pass

    return SimpleNamespace(BaseDataset=BaseDataset, DatasetGroup=DatasetGroup, collator_class=collator_class)


class Accelerator:
    process_index, sync_gradients = 0, False

    def accumulate(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def unwrap_model(self, model: Any) -> Any:
        return model


def _launch(
    torch: Any, seed: int, first_epoch: int, passed: int, resume: Path | None, steps: int
) -> list[Any]:
    """(epoch told, file, noise) of each step, in Kohya's loop: the loader is begun anew each epoch, and after a restart
    once more, to pass over the batches that were seen.
    """
    train_util = _train_util()
    data_order.keep_order(train_util, torch)
    epoch, dataset = Epoch(), train_util.DatasetGroup(seed)
    train_util.collator_class(epoch, None, dataset)
    torch.manual_seed(seed)
    loader = torch.utils.data.DataLoader(dataset, sampler=torch.utils.data.RandomSampler(dataset))
    accelerator, seen = Accelerator(), []
    if resume:
        done = first_epoch * LENGTH + passed
        restored: list[int] = []

        def restore(loop: Any) -> None:
            if not restored:
                restored.append(done)
                restore_random_state(torch, resume, 0, done)

        before_each_batch(accelerator, restore)
    for number in range(first_epoch, 99):
        epoch.value = number + 1
        for place, batch in enumerate(loader):
            if place < passed:
                continue
            with accelerator.accumulate(None):
                noise = torch.rand(DRAWN_FOR_A_STEP)
            # torch makes lists of what it collates.
            name = str(np.ravel(batch["image_keys"])[0])
            seen.append((int(batch["epoch"]), name, *(float(number) for number in noise)))
            if len(seen) == steps:
                return seen
        passed = 0
    raise AssertionError("unreachable")


def _save(torch: Any, folder: Path) -> Path:
    """As accelerate names and fills it."""
    folder.mkdir()
    content = {
        "random_state": random.getstate(),
        "numpy_random_seed": np.random.get_state(),
        "torch_manual_seed": torch.get_rng_state(),
        "torch_cuda_manual_seed": [],
    }
    torch.save(content, folder / "random_states_0.pkl")
    return folder


@pytest.mark.parametrize("done", [3, LENGTH, LENGTH + 5])
def test_a_restart_sees_the_batches_and_draws_the_noise_that_it_would_have(
    torch: Any, tmp_path: Path, done: int
) -> None:
    whole = _launch(torch, 7, 0, 0, None, 20)

    assert _launch(torch, 7, 0, 0, None, done) == whole[:done]
    state = _save(torch, tmp_path / "state")
    torch.manual_seed(99)
    resumed = _launch(torch, 7, done // LENGTH, done % LENGTH, state, 20 - done)

    assert resumed == whole[done:]


def test_an_epoch_shows_every_batch_once_and_each_epoch_and_seed_in_an_order_of_its_own(torch: Any) -> None:
    files = [name for _, name, *_ in _launch(torch, 7, 0, 0, None, 2 * LENGTH)]
    other = [name for _, name, *_ in _launch(torch, 8, 0, 0, None, LENGTH)]

    assert sorted(files[:LENGTH]) == sorted(files[LENGTH:]) == [f"{letter}.jpg" for letter in "abcdefgh"]
    assert len({tuple(files[:LENGTH]), tuple(files[LENGTH:]), tuple(other)}) == 3


def test_the_dataset_knows_the_epoch_with_its_very_first_batch(torch: Any) -> None:
    told = [epoch for epoch, *_ in _launch(torch, 7, 0, 0, None, 2 * LENGTH)]

    assert told == [1] * LENGTH + [2] * LENGTH


def test_a_process_without_numbers_of_its_own_gets_others_than_the_first_ones(
    torch: Any, tmp_path: Path
) -> None:
    state = _save(torch, tmp_path / "state")
    drawn = []
    for index in (0, 1, 2):
        restore_random_state(torch, state, index, 10)
        drawn.append(tuple(float(number) for number in torch.rand(DRAWN_FOR_A_STEP)))

    assert len(set(drawn)) == 3


def test_the_hooks_restore_the_numbers_with_the_first_batch_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = _stand_in()
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    sys.modules["torch"].__dict__.update(vars(torch))
    torch.manual_seed(3)
    state = _save(torch, tmp_path / "state")
    expected = [float(number) for number in torch.rand(2)]
    orders = Orders(states="", save_now="", done=10, counter_start=2, resume=str(state), exact=True)
    accelerator, network = Accelerator(), SimpleNamespace(save_weights=None)
    args = SimpleNamespace(max_train_steps=40, save_every_n_steps=None, validate_every_n_steps=None)
    before_each_batch(accelerator, LoopFollower(orders).before_batch)
    torch.manual_seed(4)

    drawn = []
    for _ in range(2):
        with accelerator.accumulate(None):
            drawn += [float(number) for number in torch.rand(1)]

    assert network.save_weights  # the hooks read it among this function's variables
    assert drawn == expected
    assert args.max_train_steps == 32


def test_a_restart_does_not_need_the_count_of_batches_that_accelerate_cannot_read() -> None:
    found: dict[str, int] = {}
    module = SimpleNamespace(load_accelerator_state=lambda folder: found)
    count_batches_anew(module)

    assert module.load_accelerator_state("state") == {"step": 0}
    found["step"] = 3
    assert module.load_accelerator_state("state") == {"step": 3}


def test_a_line_of_the_log_draws_none_of_the_numbers_that_all_processes_draw_alike() -> None:
    """Rich itself draws in the image's version alone; a stand-in does as that one."""
    numbering = SimpleNamespace(randint=random.randint)
    rich_style = importlib.import_module("rich.style")
    before = random.getstate()

    for module in (numbering, rich_style):
        log_without_drawing(module)
    number = numbering.randint(0, 2**62)
    rich_style.Style(link="log")

    assert random.getstate() == before
    assert numbering.randint(0, 2**62) != number


def test_a_loader_that_begins_takes_nothing_from_the_numbers_of_the_noise(torch: Any) -> None:
    """With persistent workers an uninterrupted run begins it once, a restarted one in its next epoch again."""
    train_util = _train_util()
    data_order.keep_order(train_util, torch)
    epoch, dataset = Epoch(), train_util.DatasetGroup(7)
    train_util.collator_class(epoch, None, dataset)
    loader = torch.utils.data.DataLoader(dataset, sampler=torch.utils.data.RandomSampler(dataset))
    torch.manual_seed(1)
    expected = list(torch.rand(DRAWN_FOR_A_STEP))

    torch.manual_seed(1)
    next(iter(loader))

    assert list(torch.rand(DRAWN_FOR_A_STEP)) == expected
