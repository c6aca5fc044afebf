"""How often the trainer's state is saved, as a pure function of what a save and a step cost."""

# Saving takes at most this share of the time …
MOST_SHARE = 0.03
# … and no more than this is lost to an interruption without a warning. Where both cannot hold, this one does: an
# interrupted spot instance loses all of it.
MOST_SECONDS_LOST = 600.0
# Each state goes to S3 as it is: a small one would hold to the share every few seconds.
LEAST_SECONDS = 60.0


def seconds_between_saves(save_seconds: float | None, step_seconds: float) -> float:
    """Seconds of training after one save until the next begins; `save_seconds` is None before one was measured.

    Lost at most: these seconds, the step in which they end with what is validated and drawn after it, and the save that
    was not finished.
    """
    if save_seconds is None:
        return LEAST_SECONDS
    cheap = save_seconds * (1 - MOST_SHARE) / MOST_SHARE
    bounded = MOST_SECONDS_LOST - save_seconds - step_seconds
    return max(0.0, min(max(cheap, LEAST_SECONDS), bounded))
