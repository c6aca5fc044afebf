"""What is done beside and after the encoding of pictures, with stand-ins for torch and the trainer's modules."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kohya_trainer.acceleration import while_caching

GPU = SimpleNamespace(type="cuda")
ARGS = SimpleNamespace(
    network_module="networks.lora",
    dim_from_weights=False,
    network_dim=32,
    network_alpha=16,
    network_dropout=None,
    network_args=["conv_dim=8"],
)
LOADED = (True, "encoder 1", "encoder 2", "vae", "unet", None, None)


class DatasetGroup:
    def __init__(self) -> None:
        self.cached = 0

    def new_cache_latents(self, model: Any, accelerator: Any) -> None:
        self.cached += 1


class Trainer:
    """Loads, encodes its pictures and makes its network."""

    def __init__(self, args: Any = ARGS, device: Any = GPU) -> None:
        self.args, self.accelerator = args, SimpleNamespace(device=device, mixed_precision="bf16")
        self.made: list[tuple[bool, Any, Any]] = []
        self.lora = SimpleNamespace(create_network=self._create)
        self.loader = SimpleNamespace(load_target_model=lambda args, accelerator: LOADED)

        class Group(DatasetGroup):
            pass

        self.train_util = SimpleNamespace(DatasetGroup=Group)
        network = while_caching.make_network_early(self.lora, self.loader)
        while_caching.work_while_caching(self.train_util, network)

    def _create(self, *given: Any, **named: Any) -> object:
        self.made.append((threading.current_thread() is threading.main_thread(), given, named))
        return object()

    def train(self, **changed: Any) -> DatasetGroup:
        """As train_network.py does, at its own two places."""
        self.loader.load_target_model(self.args, self.accelerator)
        group: DatasetGroup = self.train_util.DatasetGroup()
        group.new_cache_latents("vae", self.accelerator)
        group.new_cache_latents("vae", self.accelerator)
        args = self.args
        named = dict(pair.split("=") for pair in args.network_args or ())
        named.setdefault("dropout", args.network_dropout)
        given = (1.0, args.network_dim, args.network_alpha, "vae", ["encoder 1", "encoder 2"], "unet")
        self.lora.create_network(*given, neuron_dropout=args.network_dropout, **{**named, **changed})
        return group


def test_the_network_is_made_once_and_beside_the_encoding() -> None:
    trainer = Trainer()

    trainer.train()

    assert [(main, given[1], named["conv_dim"]) for main, given, named in trainer.made] == [(False, 32, "8")]


def test_a_network_that_was_made_otherwise_than_asked_for_is_made_again() -> None:
    trainer = Trainer()

    trainer.train(conv_dim="4")

    assert [(main, named["conv_dim"]) for main, _, named in trainer.made] == [(False, "8"), (True, "4")]


@pytest.mark.parametrize(
    "changed", [{"network_module": "networks.lora_fa"}, {"dim_from_weights": True}], ids=str
)
def test_a_network_of_another_kind_is_made_by_the_trainer(changed: dict[str, Any]) -> None:
    trainer = Trainer(SimpleNamespace(**{**vars(ARGS), **changed}))

    trainer.train()

    assert [main for main, *_ in trainer.made] == [True]


def test_without_a_gpu_the_cpu_draws_the_pictures_numbers_itself() -> None:
    trainer = Trainer(device=SimpleNamespace(type="cpu"))

    assert trainer.train().cached == 2
    assert [main for main, *_ in trainer.made] == [True]


def test_what_fails_early_is_made_by_the_trainer(capfd: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def create(*given: Any, **named: Any) -> str:
        calls.append("called")
        if len(calls) == 1:
            raise MemoryError("no memory")
        return "network"

    early = while_caching.EarlyNetwork(create)
    early.expect(ARGS, LOADED)
    early.begin()

    assert early.take() == "network"
    assert "network not made early (MemoryError: no memory)" in capfd.readouterr().out


def test_pictures_are_cached_even_where_no_kernel_compiles(capfd: pytest.CaptureFixture[str]) -> None:
    assert Trainer().train().cached == 2
    assert "kernels not made ready early" in capfd.readouterr().out


def test_text_encoders_stay_behind_without_weights_once_their_outputs_are_cached() -> None:
    class Encoder:
        place = "cuda"

        def to(self, device: str, dtype: str | None = None) -> "Encoder":
            self.place = device
            return self

    cached: list[str] = []

    class Group:
        def new_cache_text_encoder_outputs(self, models: list[Encoder], accelerator: Any) -> None:
            cached.extend(model.place for model in models)

    train_util = SimpleNamespace(DatasetGroup=Group)
    while_caching.release_text_encoders(train_util)
    first, second = Encoder(), Encoder()

    # The trainer hands the second one over twice.
    Group().new_cache_text_encoder_outputs([first, second, second], None)
    for encoder in (first, second):
        assert encoder.to("cpu", dtype="float32") is encoder

    assert cached == ["cuda"] * 3
    assert [first.place, second.place] == ["meta", "meta"]
    # Only that once.
    assert first.to("cpu").place == "cpu"
