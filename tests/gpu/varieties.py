"""What users set beside the presets, on a GPU: optimizers with a state of their own kind, other networks, precisions.

    python tests/gpu/varieties.py --sd-scripts DIR --vocabulary FILE [--work DIR] [--out DIR] [--within SECONDS]

As verify.py. Each variety is trained without an interruption, and once more with a kill after a state, from which a
restart goes on: losses, learning rates and the model must be those of the first. Where they are further apart than
stated, it is trained once more without an interruption, to see how far apart the GPU itself puts two equal runs. Some
are gone on with an optimizer that forgot, which has to be seen. Exits with 0 only if every check holds.
"""

import json
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from time import monotonic
from typing import Any

from checks import CHECKED, distance, told_by
from preparation import bench_of, parser
from report import Report, Result
from roots import Bench, Root, Run, preset, sends
from verify import WITHIN, Group, exit_code, run_groups

from kohya_trainer.checkpoints import MARKER
from kohya_trainer.staging import sha256_of

STEPS = 12
SIDE = 512
# In the middle of the first epoch of six batches, so that the restart goes on within it and into the next.
STATE = 4
# A LoRA of ten times the presets' rate, so that a state that was lost would be seen in these few steps.
RATE = 1e-3
# How many times as far apart as two whole runs a restart may be.
MARGIN = 1.25
SMALLER = {**CHECKED, "max_train_steps": STEPS, "train_batch_size": 2, "learning_rate": RATE}
# As the preset, but for what a cached text forbids.
BOTH_ENCODERS = {"network_train_unet_only": False, "cache_text_encoder_outputs": False}


@dataclass(frozen=True)
class Apart:
    """Two runs: the largest difference of a step's loss and of its learning rate, as shares of the largest number of
    all, and that of the up-weights as a share of their norm. Infinite where one has what the other has not.
    """

    losses: float
    rates: float
    models: float

    def within(self, limits: "Apart") -> bool:
        return all(mine <= limit for mine, limit in zip(astuple(self), astuple(limits), strict=True))

    def widened(self, noise: "Apart") -> "Apart":
        """Limits, where two equal runs lie `noise` apart."""
        pairs = zip(astuple(self), astuple(noise), strict=True)
        return Apart(*(max(limit, MARGIN * other) for limit, other in pairs))

    def __str__(self) -> str:
        return f"losses {self.losses:.2g}, rates {self.rates:.2g}, up-weights {self.models:.2g}"


# Of one run of the same numbers to the next: a GPU sums in another order each time. The model's distance is that of
# verify.py; a loss hangs less on the weights than on the noise that is drawn, and which an order of data that was lost
# would change by a tenth.
ALLOWED = Apart(losses=2e-3, rates=0.01, models=0.05)


@dataclass(frozen=True)
class Variety:
    """`rate`: what is to be told after a step as a share of learning_rate; None where the optimizer finds it.
    `forgets`: is gone on with an emptied optimizer too.
    """

    name: str
    options: dict[str, Any]
    rate: Callable[[int], float] | None = None
    state: int = STATE
    forgets: bool = False

    @property
    def all_options(self) -> dict[str, Any]:
        """Of the trainer; what is None is taken from the preset."""
        given = {**preset("sdxl-character"), **SMALLER, **self.options}
        return {name: value for name, value in given.items() if value is not None}


def constant(step: int) -> float:
    return 1.0


def cosine(step: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * step / STEPS))


def warmed_up(step: int) -> float:
    """Constant after a quarter of the steps."""
    return min(1.0, step / 3)


def restarted(step: int) -> float:
    """Warmed up, then two cosines (transformers' get_cosine_with_hard_restarts_schedule_with_warmup)."""
    if step < 3:
        return step / 3
    done = (step - 3) / (STEPS - 3)
    return 0.0 if done >= 1.0 else 0.5 * (1.0 + math.cos(math.pi * ((2 * done) % 1.0)))


RESTARTED = {"lr_scheduler": "cosine_with_restarts", "lr_warmup_steps": 3, "lr_scheduler_num_cycles": 2}
# The longest first.
VARIETIES = (
    Variety("text_encoders_adamw8bit", {"optimizer_type": "AdamW8bit", **BOTH_ENCODERS}, cosine),
    Variety(
        "accumulated_adamw8bit",
        # States come between epochs alone, each of which is three steps.
        {"optimizer_type": "AdamW8bit", "gradient_accumulation_steps": 2},
        cosine,
        state=6,
    ),
    Variety(
        "paged_adamw8bit_bf16",
        {"optimizer_type": "PagedAdamW8bit", "full_bf16": True},
        cosine,
        forgets=True,
    ),
    Variety(
        "locon_lion",
        {
            "optimizer_type": "Lion",
            "network_args": ["conv_dim=4", "conv_alpha=1"],
            "learning_rate": 1e-4,
            **RESTARTED,
        },
        restarted,
    ),
    Variety("lion8bit", {"optimizer_type": "Lion8bit", "learning_rate": 1e-4}, cosine, forgets=True),
    Variety(
        "prodigy",
        {
            "optimizer_type": "Prodigy",
            "learning_rate": 1.0,
            "optimizer_args": ["decouple=True", "weight_decay=0.01", "use_bias_correction=True", "d_coef=2"],
        },
    ),
    Variety(
        "dadapt_adam",
        {
            "optimizer_type": "DAdaptAdam",
            "learning_rate": 1.0,
            "lr_scheduler": "constant",
            "optimizer_args": ["decouple=True"],
        },
    ),
    Variety("adafactor_relative", {"optimizer_type": "Adafactor", "lr_scheduler": "adafactor"}),
    Variety(
        "lora_fa_adafactor",
        {
            "network_module": "networks.lora_fa",
            "optimizer_type": "Adafactor",
            "optimizer_args": ["scale_parameter=False", "relative_step=False", "warmup_init=False"],
            "lr_scheduler": "constant_with_warmup",
            "lr_warmup_steps": 0.25,
            "max_grad_norm": 0.0,
        },
        warmed_up,
    ),
    Variety(
        "adamw_schedule_free", {"optimizer_type": "AdamWScheduleFree", "lr_scheduler": "constant"}, constant
    ),
    Variety(
        "dylora_paged_adamw",
        {"network_module": "networks.dylora", "network_args": ["unit=4"], "optimizer_type": "PagedAdamW"},
        cosine,
    ),
    # The rate stays where a step's gradients were too large for half precision.
    Variety("fp16", {"mixed_precision": "fp16", "save_precision": "fp16"}),
)


def group_of(variety: Variety) -> Group:
    """Under the variety's name."""

    def group(bench: Bench) -> Iterator[Result]:
        return trained(bench, variety)

    group.__name__ = variety.name
    return group


def trained(bench: Bench, variety: Variety) -> Iterator[Result]:
    """Uninterrupted; then killed and gone on with, and so with an optimizer that forgot."""
    whole = root_of(bench, variety, "whole")
    run = whole.run()
    title = f"{variety.name} ends with a proved model"
    yield Result(title, run.code == 0, told_by(run), run.seconds)
    if run.code != 0:
        return
    yield rate_told(variety, history(whole))
    killed = root_of(bench, variety, "killed")
    first, again = killed_after_its_state(variety, killed), killed.run()
    limits = ALLOWED
    if variety.forgets or not apart(whole, killed).within(ALLOWED):
        twin = root_of(bench, variety, "twin")
        limits = ALLOWED.widened(apart(whole, twin)) if twin.run().code == 0 else ALLOWED
    yield gone_on(variety, whole, killed, first, again, limits)
    if variety.forgets:
        yield forgetful(bench, variety, whole, limits)


def root_of(bench: Bench, variety: Variety, kind: str) -> Root:
    """Six batches an epoch."""
    root = Root(bench, f"{variety.name}-{kind}", {"CHECKPOINT_EVERY_N_STEPS": str(variety.state)})
    root.add_images(6, SIDE, folder="2_sks cat")
    root.write_plan(variety.all_options)
    return root


def history(root: Root) -> list[dict[str, Any]]:
    """A step each."""
    lines = (root.path / "model" / "loss.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rate_told(variety: Variety, entries: list[dict[str, Any]]) -> Result:
    """Of the step that comes next, as the scheduler has it, which is asked for nothing here."""
    told = [entry.get("learning_rate") for entry in entries]
    detail = ", ".join("-" if rate is None else f"{rate:.3g}" for rate in told)
    right = len(told) == STEPS and all(rate is not None and 0 <= rate < 1 for rate in told)
    if right and variety.rate:
        highest = float(variety.all_options["learning_rate"])
        wanted = [highest * variety.rate(step) for step in range(1, STEPS + 1)]
        right = all(abs(rate - other) < 1e-4 * highest for rate, other in zip(told, wanted, strict=True))
    elif right:
        right = any(rate > 0 for rate in told)
    return Result(f"{variety.name} tells its learning rate", right, detail)


def gone_on(variety: Variety, whole: Root, killed: Root, first: Run, again: Run, limits: Apart) -> Result:
    """The restart makes the missing steps alone, and ends as if there had been none."""
    title = f"{variety.name} goes on after a kill as if there had been none"
    if first.code != -signal.SIGKILL or again.code != 0:
        return Result(title, False, told_by(again if first.code == -signal.SIGKILL else first), again.seconds)
    steps = [int(entry["step"]) for entry in again.progress()]
    told = history(killed)
    counted = [entry["step"] for entry in told] == list(range(1, STEPS + 1))
    seen = apart(whole, killed)
    passed = counted and steps == list(range(variety.state + 1, STEPS + 1)) and seen.within(limits)
    detail = f"steps {steps[:1]} to {steps[-1:]}; the last loss {told[-1]['batch_loss']:.6g}; apart: {seen}"
    return Result(title, passed, f"{detail}; allowed: {limits}", again.seconds)


def forgetful(bench: Bench, variety: Variety, whole: Root, limits: Apart) -> Result:
    """What the check before this one can see."""
    root = root_of(bench, variety, "forgetful")
    killed_after_its_state(variety, root)
    empty_the_optimizer(root)
    again = root.run()
    title = f"{variety.name}: an optimizer that begins anew would be seen"
    seen = apart(whole, root)
    passed = again.code == 0 and not seen.within(limits)
    return Result(title, passed, f"apart: {seen}" if again.code == 0 else told_by(again), again.seconds)


def killed_after_its_state(variety: Variety, root: Root) -> Run:
    return root.run(rf"^checkpoint step={variety.state} ", sends(signal.SIGKILL))


def empty_the_optimizer(root: Root) -> None:
    """In each kept state, whose marker then tells of the changed file."""
    import torch

    for marker in (root.path / "checkpoints").glob(f"*/{MARKER}"):
        state = marker.parent / "state" / "optimizer.bin"
        content = torch.load(state, map_location="cpu", weights_only=False)
        torch.save({**content, "state": {}}, state)
        told = json.loads(marker.read_text(encoding="utf-8"))
        told["files"][state.relative_to(marker.parent / "state").as_posix()] = sha256_of(state)
        marker.write_text(json.dumps(told), encoding="utf-8")


def apart(one: Root, two: Root) -> Apart:
    if not two.model.exists():
        return Apart(math.inf, math.inf, math.inf)
    entries, others = history(one), history(two)
    return Apart(
        difference(entries, others, "batch_loss"),
        difference(entries, others, "learning_rate"),
        distance(one.model, two.model),
    )


def difference(one: list[dict[str, Any]], two: list[dict[str, Any]], name: str) -> float:
    pairs = [(entry.get(name), other.get(name)) for entry, other in zip(one, two, strict=False)]
    if len(one) != len(two) or not pairs or any(number is None for pair in pairs for number in pair):
        return math.inf
    largest = max(abs(number) for pair in pairs for number in pair)
    return max(abs(number - other) for number, other in pairs) / largest if largest else 0.0


def main() -> int:
    """The exit code."""
    arguments = parser(__doc__, "/tmp/kohya-varieties", "names of varieties, separated by commas")
    arguments.add_argument("--within", type=float, default=WITHIN, help="seconds (%(default)s)")
    given = arguments.parse_args()
    began = monotonic()
    report = Report(given.out, "varieties.json")
    bench = bench_of(given)
    print(f"fabricated after {monotonic() - began:.0f} s", flush=True)
    names = given.only.split(",") if given.only else [variety.name for variety in VARIETIES]
    wanted = [group_of(variety) for variety in VARIETIES if variety.name in names]
    ended = run_groups(wanted, bench, report, began + given.within)
    return exit_code(report, began, all_ended=len(ended) == len(wanted))


if __name__ == "__main__":
    raise SystemExit(main())
