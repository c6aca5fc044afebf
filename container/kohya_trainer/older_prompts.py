"""The prompts of the older layout, whose TOML names a file of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def prompts_of_older_layout(options: Mapping[str, Any], dataset: Path) -> tuple[tuple[str, ...], str | None]:
    """The prompts, and a note where `sample_prompts` names a file that is not taken.

    The path may be that of another machine, so the file is looked for in the dataset and by its name at the dataset's
    top. Of Kohya's three forms one prompt a line is read (library/train_util.py, load_prompts).
    """
    named = options.get("sample_prompts")
    if not named:
        return (), None
    found = next((path for path in _places(Path(str(named)), dataset) if path.is_file()), None)
    if found is None:
        return (), f"sample_prompts: {named} is not in the dataset, no pictures are drawn"
    if found.suffix.lower() != ".txt":
        return (), f"sample_prompts: {found.name} is no .txt with one prompt a line, no pictures are drawn"
    lines = (line.strip() for line in found.read_text(encoding="utf-8", errors="replace").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#")), None


def _places(named: Path, dataset: Path) -> list[Path]:
    """Inside the dataset alone: what is drawn is delivered with its prompt."""
    places = (dataset / named, dataset / named.name)
    return [path for path in places if path.resolve().is_relative_to(dataset.resolve())]
