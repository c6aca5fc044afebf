"""The rehearsal's entry point, called as Kohya's own script of this name is."""

import os
import sys

# One thread: the same run gives the same numbers, and the emulator beside it keeps a core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rehearsal_trainer.arguments import parse_arguments
from rehearsal_trainer.training import train

if __name__ == "__main__":
    sys.exit(train(parse_arguments(sys.argv[1:])))
