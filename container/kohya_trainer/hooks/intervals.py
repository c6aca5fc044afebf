"""The trainer's intervals of steps, by the run's own steps: its counter begins anew with each launch, wherever in an
epoch that is.
"""

import copy
from typing import Any

# It looks at them when a step has been made (train_network.py, sd-scripts 2e0fcc5).
NAMES = ("save_every_n_steps", "validate_every_n_steps")


class Intervals:
    """Taken out of the trainer's options, which say before each step what is due after it."""

    def __init__(self, args: Any) -> None:
        self._every = {name: getattr(args, name) for name in NAMES}

    def announce(self, args: Any, step: int) -> None:
        """Before the run's `step` is made: every step is one of an interval of 1, and none is without an interval."""
        for name, every in self._every.items():
            setattr(args, name, 1 if every and step % every == 0 else None)

    def of_the_run(self, args: Any) -> Any:
        """The options as they were."""
        own = copy.copy(args)
        for name, every in self._every.items():
            setattr(own, name, every)
        return own
