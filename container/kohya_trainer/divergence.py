"""When a loss counts as diverging, although it is still a number."""

from collections import deque

# The loss of one step depends more on the drawn noise level than on the model: only averages say something.
WINDOW = 30
FACTOR = 5.0
RULE = f"the average of {WINDOW} steps is more than {FACTOR:g} times the lowest such average before"


class DivergenceWatch:
    """Applies RULE to the losses of one launch."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._lowest: float | None = None

    def add(self, loss: float) -> bool:
        """True if the run diverges with this step's loss."""
        self._losses.append(loss)
        if len(self._losses) < WINDOW:
            return False
        average = sum(self._losses) / WINDOW
        if self._lowest is None or average < self._lowest:
            self._lowest = average
        return average > FACTOR * self._lowest
