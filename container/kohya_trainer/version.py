"""What this image holds: the versions and commits that provenance and `train --version` name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kohya_trainer.options import TABLES


def image_facts(variables: Mapping[str, str]) -> dict[str, str | None]:
    """kohya_ss (the tag), kohya_ss_commit, trainer_commit, source_commit, option_table_sha256; None where unknown."""
    version = variables.get("KOHYA_VERSION")
    table = TABLES / f"kohya_ss-{version}.json"
    return {
        "kohya_ss": version,
        **kohya_commits(Path(variables.get("KOHYA_HOME", ""))),
        "source_commit": variables.get("SOURCE_COMMIT") or None,
        "option_table_sha256": hashlib.sha256(table.read_bytes()).hexdigest() if table.is_file() else None,
    }


def kohya_commits(home: Path) -> dict[str, str | None]:
    """kohya_ss_commit and trainer_commit, as the image's build found them where it cloned; None outside an image."""
    return {name.lower(): _line(home / name) for name in ("KOHYA_SS_COMMIT", "TRAINER_COMMIT")}


def _line(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
