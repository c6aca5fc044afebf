"""`python -m local.cli COMMAND`.

The commands are imported when signals are handled already: that takes a moment, in which Ctrl-C may come.
"""

import sys

from local.cli.interruption import Interrupted, interruptible


def main(arguments: list[str]) -> int:
    try:
        with interruptible():
            from local.cli import commands

            return commands.main(arguments)
    except Interrupted as interruption:
        print(f"\ninterrupted. {interruption.what_stays}".rstrip(), file=sys.stderr)
        return 128 + interruption.signal_number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
