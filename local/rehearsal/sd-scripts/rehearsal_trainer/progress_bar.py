"""tqdm's bar as Kohya shows it (smoothing=0, desc="steps"): redrawn for every step, and again with its
loss.
"""

import sys
import time

WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


class ProgressBar:
    """Writes to stderr with a leading carriage return and no newline until it is closed."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._postfix, self._began = total, 0, "", time.monotonic()
        self._draw()

    def update(self) -> None:
        """One step is done."""
        self._done += 1
        self._draw()

    def set_loss(self, loss: float) -> None:
        """set_postfix(avr_loss=…): three significant digits."""
        self._postfix = f", avr_loss={loss:.3g}"
        self._draw()

    def close(self) -> None:
        """Leaves the bar on its line."""
        self._draw("\n")

    def _draw(self, end: str = "") -> None:
        elapsed = time.monotonic() - self._began
        speed = self._done / elapsed if self._done and elapsed > 0 else 0.0
        share = self._done / self._total if self._total else 1.0
        eighths = int(share * WIDTH * 8)
        blocks = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths < WIDTH * 8 else "")
        left = _interval((self._total - self._done) / speed) if speed else "?"
        rate = "?it/s" if not speed else f"{speed:5.2f}it/s" if speed >= 1 else f"{1 / speed:5.2f}s/it"
        counts = f"{self._done}/{self._total} [{_interval(elapsed)}<{left}, {rate}{self._postfix}]"
        sys.stderr.write(f"\rsteps: {share * 100:3.0f}%|{blocks:<{WIDTH}}| {counts}{end}")
        sys.stderr.flush()


def _interval(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
