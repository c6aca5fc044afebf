"""The rehearsal's entry point, called as Kohya's own script of this name is."""

import sys

from rehearsal_trainer.arguments import parse_arguments
from rehearsal_trainer.training import train

if __name__ == "__main__":
    sys.exit(train(parse_arguments(sys.argv[1:])))
