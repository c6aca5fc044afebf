"""What this image holds: the versions and commits that provenance and `train --version` name."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kohya_trainer.options import TABLES


def image_facts(variables: Mapping[str, str]) -> dict[str, str | None]:
    """kohya_ss (the tag), kohya_ss_commit, trainer_commit, source_commit, option_table_sha256; None where unknown."""
    version = variables.get("KOHYA_VERSION")
    home = Path(variables.get("KOHYA_HOME", ""))
    table = TABLES / f"kohya_ss-{version}.json"
    return {
        "kohya_ss": version,
        "kohya_ss_commit": _line(home / "KOHYA_SS_COMMIT"),  # both written where it was cloned
        "trainer_commit": _line(home / "TRAINER_COMMIT"),
        "source_commit": variables.get("SOURCE_COMMIT") or None,
        "option_table_sha256": hashlib.sha256(table.read_bytes()).hexdigest() if table.is_file() else None,
    }


def _line(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
