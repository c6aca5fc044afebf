"""What ends a command."""


class CommandError(Exception):
    """The message says what did not work and what to do about it; it is all that a person sees."""
