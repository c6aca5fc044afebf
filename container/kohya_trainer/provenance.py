"""provenance.json: what the model was made of and how, beside the model, with the digest of every
delivered file.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kohya_trainer.staging import sha256_of

NAME = "provenance.json"
SCHEMA_VERSION = 1


def delivered_files(model: Path) -> list[dict[str, Any]]:
    """[{"name" (relative), "size" (bytes), "sha256"}], sorted by name."""
    paths = sorted(path for path in model.rglob("*") if path.is_file() and path.name != NAME)
    return [
        {"name": path.relative_to(model).as_posix(), "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in paths
    ]


def write_provenance(model: Path, facts: Mapping[str, Any]) -> Path:
    """Written last, so that a provenance.json stands for a whole delivery."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "files": delivered_files(model),
    }
    path = model / NAME
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
