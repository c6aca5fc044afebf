"""What this image holds: the versions and commits that provenance and `train --version` name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from kohya_trainer.options import TABLES

COMMITS = "COMMITS.json"  # beside the trainer, written where it was cloned


def image_facts(variables: Mapping[str, str]) -> dict[str, str | None]:
    """kohya_ss (the tag), kohya_ss_commit, trainer_commit, source_commit, option_table_sha256; None where unknown."""
    version = variables.get("KOHYA_VERSION")
    commits = Path(variables.get("KOHYA_HOME", "")) / COMMITS
    cloned = json.loads(commits.read_bytes()) if commits.is_file() else {}
    table = TABLES / f"kohya_ss-{version}.json"
    return {
        "kohya_ss": version,
        "kohya_ss_commit": cloned.get("kohya_ss"),
        "trainer_commit": cloned.get("trainer"),
        "source_commit": variables.get("SOURCE_COMMIT"),
        "option_table_sha256": hashlib.sha256(table.read_bytes()).hexdigest() if table.is_file() else None,
    }
