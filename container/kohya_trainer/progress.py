"""Kohya's output as events: tqdm's carriage-return bars and plain lines, out of bytes that arrive in any
pieces.

A bar looks like `steps:  12%|█▏ | 12/100 [00:06<00:44,  2.00it/s, avr_loss=0.123]` and is preceded, not
followed, by a carriage return; it is drawn once for the step and again for the loss of that step.
"""

import codecs
import math
import re
from dataclasses import dataclass

LONGEST_LINE = 4000
LARGEST_PENDING = 1 << 16
_BAR = re.compile(
    r"\s*steps: *\d+%\|[^|]*\| *(?P<done>\d+)/(?P<total>\d+) "
    r"\[[^\]<]*<[^\],]*, *(?P<rate>[\d.]+|\?)(?P<unit>it/s|s/it)(?P<more>[^\]]*)\]"
)
# Kohya's logger pads each line to the terminal's width and writes a file name at its end.
_PADDING = re.compile(r"(?<=\S) {3,}")
_LOSS = re.compile(r"\b(?:avr_loss|loss)=(?P<loss>[^,\s]+)")


@dataclass(frozen=True)
class Bar:
    """`done` and `total` as the trainer counts them in this launch; `loss` is its moving average."""

    done: int
    total: int
    loss: float | None
    seconds_per_step: float | None


@dataclass(frozen=True)
class Line:
    """Anything else. `transient` lines are other bars, of which only a few deserve to be shown."""

    text: str
    transient: bool = False


class OutputReader:
    """Turns chunks of bytes into events; keeps at most LARGEST_PENDING characters."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._pending = ""

    def feed(self, chunk: bytes) -> list[Bar | Line]:
        """The events that `chunk` completes. A complete bar is reported though nothing follows it yet."""
        self._pending += self._decode(chunk)
        *complete, self._pending = re.split(r"(?<=[\r\n])", self._pending)
        events = [event for text in complete for event in _events(text)]
        if (bar := _BAR.fullmatch(self._pending.rstrip())) is not None:
            events.append(_bar(bar))
        elif len(self._pending) > LARGEST_PENDING:
            events.extend(_events(self._pending))
            self._pending = ""
        return events

    def close(self) -> list[Bar | Line]:
        """What was pending when the output ended."""
        pending, self._pending = self._pending + self._decode(b"", final=True), ""
        return _events(pending)


@dataclass(frozen=True)
class Progress:
    """One optimizer step of the whole run, restarts included; `loss` is smoothed."""

    step: int
    total: int
    loss: float
    learning_rate: float | None
    seconds_per_step: float | None
    images_per_second: float | None = None
    gpu_gib: float | None = None

    def text(self) -> str:
        """The line that the training job's MetricDefinitions parse."""
        parts = [f"step={self.step}", f"total={self.total}", f"loss={self.loss:.6g}"]
        if self.learning_rate is not None:
            parts.append(f"lr={self.learning_rate:.6g}")
        if self.images_per_second is not None:
            parts.append(f"images_per_second={self.images_per_second:.4g}")
        if self.gpu_gib is not None:
            parts.append(f"gpu_memory_gib={self.gpu_gib:.4g}")
        if self.seconds_per_step is not None:
            remaining = max(0.0, (self.total - self.step) * self.seconds_per_step)
            parts += [f"seconds_per_step={self.seconds_per_step:.4g}", f"eta_seconds={remaining:.0f}"]
        return "progress " + " ".join(parts)


def is_diverged(loss: float | None) -> bool:
    """NaN or infinite."""
    return loss is not None and not math.isfinite(loss)


def _events(text: str) -> list[Bar | Line]:
    body = text.rstrip("\r\n")
    bar = _BAR.match(body)
    rest = body[bar.end() :].strip() if bar else body.rstrip()
    events: list[Bar | Line] = [_bar(bar)] if bar else []
    if rest:
        events.append(Line(_PADDING.sub("  ", rest)[:LONGEST_LINE], transient=text.endswith("\r")))
    return events


def _bar(match: re.Match[str]) -> Bar:
    loss = _LOSS.search(match["more"])
    return Bar(
        done=int(match["done"]),
        total=int(match["total"]),
        loss=_number(loss["loss"]) if loss else None,
        seconds_per_step=_seconds(match["rate"], match["unit"]),
    )


def _seconds(rate: str, unit: str) -> float | None:
    value = _number(rate)
    if value is None or value <= 0:
        return None
    return value if unit == "s/it" else 1.0 / value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
