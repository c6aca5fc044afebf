"""`python -m local.preflight validate|plan DIR`.

The rules are imported within what catches Ctrl-C: that takes a moment, in which it may come.
"""

import sys


def main(arguments: list[str]) -> int:
    """The exit code. An interruption needs no words: nothing was begun that could go on."""
    try:
        from local.preflight import command

        return command.main(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
