"""Writes the option table of the Kohya that KOHYA_HOME holds: `python -m kohya_trainer.make_option_table
v26.0.0`.

It must run where the trainer's packages are installed, that is inside the image, because it asks the
trainer's own parser.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kohya_trainer.command import entry_point
from kohya_trainer.keyword_arguments import describe_arguments
from kohya_trainer.options import TABLES


def trainer_parser(kohya_home: Path) -> argparse.ArgumentParser:
    """The trainer's own; it and all that it imports are loaded for it, from its own folder."""
    script = entry_point(kohya_home)
    sys.path.insert(0, str(script.parent))
    parser: argparse.ArgumentParser = importlib.import_module(script.stem).setup_parser()
    return parser


def describe(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Name → {"type", "choices"?, "default"?, "nargs"?, "flags"}, sorted by name."""
    options: dict[str, dict[str, Any]] = {}
    for action in parser._actions:  # argparse has no public list of its options
        if isinstance(action, argparse._HelpAction):
            continue
        flag = action.nargs == 0
        entry: dict[str, Any] = {"type": "flag" if flag else getattr(action.type, "__name__", "str")}
        if action.choices is not None:
            entry["choices"] = list(action.choices)
        if action.default is not None and not flag and isinstance(action.default, str | int | float | list):
            entry["default"] = action.default
        if action.nargs and not flag:
            entry["nargs"] = action.nargs
        entry["flags"] = list(action.option_strings)
        options[action.dest] = entry
    return dict(sorted(options.items()))


def differences(parser: Mapping[str, Mapping[str, Any]], table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each option in which the trainer's parser and a table are not the same."""
    lines = [f"{name}: the trainer has it, the table does not" for name in sorted(set(parser) - set(table))]
    lines += [f"{name}: the table has it, the trainer does not" for name in sorted(set(table) - set(parser))]
    for name in sorted(set(parser) & set(table)):
        found, expected = parser[name], table[name]
        lines += [
            f"{name}: {member} is {found.get(member)!r} in the trainer, {expected.get(member)!r} in the table"
            for member in sorted({*found, *expected})
            if found.get(member) != expected.get(member)
        ]
    return lines


def argument_differences(
    trainer: Mapping[str, Mapping[str, list[str]]], table: Mapping[str, Mapping[str, list[str]]]
) -> list[str]:
    """A line for each optimizer or scheduler whose keywords the trainer's packages and a table do not have alike."""
    names = sorted({(option, name) for each in (trainer, table) for option in each for name in each[option]})
    return [
        f"{option} of {name}: {found} in the trainer's packages, {expected} in the table"
        for option, name in names
        if (found := trainer.get(option, {}).get(name)) != (expected := table.get(option, {}).get(name))
    ]


def main(version: str) -> int:
    """Prints the path of the table it wrote."""
    home = Path(os.environ["KOHYA_HOME"])
    table = {
        "trainer": entry_point(home).name,
        "version": f"kohya_ss-{version}",
        "options": describe(trainer_parser(home)),
        "arguments": describe_arguments(importlib.import_module("library.train_util")),
    }
    path = TABLES / f"kohya_ss-{version}.json"
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
