"""What the embedded AWS is told by its environment (docs/contracts.md, "The embedded AWS")."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REHEARSAL = Path(__file__).resolve().parent.parent / "rehearsal"


@dataclass(frozen=True)
class Settings:
    """`port` is the real one: the server chooses a free port before anything reads it."""

    port: int
    home: Path
    kohya_home: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mailbox(self) -> Path:
        return self.home / "mailbox"

    @property
    def repositories(self) -> Path:
        """Bare git repositories, `<name>.git`."""
        return self.home / "codecommit"

    @property
    def builds(self) -> Path:
        return self.home / "builds"

    @property
    def training(self) -> Path:
        """One /opt/ml root a training job."""
        return self.home / "training"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the server and of everything it starts, so that nothing is left outside of `home`."""
        return self.home / "tmp"


def read_settings(environment: Mapping[str, str]) -> Settings:
    return Settings(
        port=int(environment.get("EMBEDDED_AWS_PORT") or 0),
        home=Path(environment.get("EMBEDDED_AWS_HOME") or ".embedded-aws").absolute(),
        kohya_home=Path(environment.get("KOHYA_HOME") or REHEARSAL).absolute(),
    )


_settings: list[Settings] = []


def use(settings: Settings) -> None:
    """Make these the settings of this process: the server knows the port that it was given."""
    _settings[:] = [settings]


def settings() -> Settings:
    """The settings of this process."""
    if not _settings:
        use(read_settings(os.environ))
    return _settings[0]
