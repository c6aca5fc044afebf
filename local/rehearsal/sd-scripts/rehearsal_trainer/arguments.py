"""Kohya's command line: the parser is built from the option table that was read from the real one.

As in Kohya, `--config_file` puts TOML keys onto the namespace unchecked, and what the command line says wins.
"""

import argparse
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rehearsal_trainer.log import info

TABLE = Path(__file__).resolve().parents[4] / "container" / "options" / "kohya_ss-v25.2.2.json"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Exits with code 2 on an unknown option and with 1 on a missing configuration file, as Kohya does."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.config_file:
        return args
    path = Path(args.config_file if args.config_file.endswith(".toml") else f"{args.config_file}.toml")
    if not path.is_file():
        info(f"{path} not found.")
        parser.exit(1)
    info(f"Loading settings from {path}...")
    flat: dict[str, Any] = {}
    for name, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return parser.parse_args(arguments, namespace=argparse.Namespace(**flat))


def _parser() -> argparse.ArgumentParser:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog=table["trainer"], allow_abbrev=False)
    for name, option in table["options"].items():
        settings: dict[str, Any] = {"dest": name}
        if option["type"] == "flag":
            settings |= {"action": "store_true"}
        else:
            settings |= {"type": _TYPES[option["type"]], "default": option.get("default")}
            settings |= {key: option[key] for key in ("choices", "nargs") if key in option}
        parser.add_argument(*option["flags"], **settings)
    return parser


def _int_or_float(text: str) -> int | float:
    return float(text) if "." in text or "e" in text.lower() else int(text)


_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "int_or_float": _int_or_float,
    "Path": Path,
}
