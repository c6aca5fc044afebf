"""What the hooks inside the trainer's process tell this package: one JSON object a line of the trainer's output."""

import json
import sys
from typing import Any

PREFIX = "@kohya_trainer "


def encode(event: str, **facts: Any) -> str:
    """One line. Numbers that are not finite are written as Python's json writes and reads them."""
    return PREFIX + json.dumps({"event": event, **facts})


def tell(event: str, **facts: Any) -> None:
    """On a line of its own: the progress bar beside it ends without a newline. In one piece: print would hand over the
    newline by itself where nothing is buffered, and a line of another process could come between.
    """
    sys.stdout.write(f"\n{encode(event, **facts)}\n")
    sys.stdout.flush()


def decode(line: str) -> dict[str, Any] | None:
    """The event with its facts; None for any other line, and for one that was torn."""
    _, found, text = line.partition(PREFIX)
    if not found:
        return None
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
