"""What the hooks inside the trainer's process are to do, handed over as a JSON file."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

# Names the file, in the trainer's environment.
VARIABLE = "KOHYA_TRAINER_ORDERS"


@dataclass(frozen=True)
class Orders:
    """`done` steps of the run were made before; the trainer's own counter begins with `counter_start`.

    states: folder for finished states. save_now: a file whose appearance asks for a state before the next batch.
    resume: the state that the trainer goes on from; `exact` if at exactly its batch of its epoch.
    save_every: steps between states instead of what the policy chooses.
    sample_every: steps between samples; None where epochs decide or there are no prompts.
    patience: validations without a better one after which the training ends; None without a validation.
    best_loss, waited: the best validation so far, and how many came after it.
    latents: folder that keeps the latents of images; None where the trainer holds them in memory.
    contents: path of an image → sha256, by which its latents are named.
    """

    states: str
    save_now: str
    done: int = 0
    counter_start: int = 0
    resume: str | None = None
    exact: bool = False
    save_every: int | None = None
    sample_every: int | None = None
    samples: bool = False
    patience: int | None = None
    best_loss: float | None = None
    waited: int = 0
    latents: str | None = None
    contents: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_orders(path: Path) -> Orders:
    content = json.loads(path.read_bytes())
    return Orders(**{each.name: content[each.name] for each in fields(Orders)})
