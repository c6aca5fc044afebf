"""What a job says while it goes on."""

from dataclasses import dataclass, field


@dataclass
class Log:
    """Prints, and remembers what the failure file quotes: the trainer's lines once there are any."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One line, at once: CloudWatch and the metrics read it as it comes."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """A line of this package's own."""
        self.say(text)
        self.lines.append(text)
