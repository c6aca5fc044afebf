"""The tool that makes an option table, on the parser that the stand-in builds from one: both must agree."""

import argparse
import json

from kohya_trainer.make_option_table import describe
from kohya_trainer.options import TABLES


def test_a_table_made_from_the_parser_is_the_table_that_the_parser_was_made_from() -> None:
    from rehearsal_trainer.arguments import _parser

    table = json.loads((TABLES / "kohya_ss-v25.2.2.json").read_bytes())["options"]

    made = describe(_parser())

    for name, option in table.items():
        expected = {**option, "type": option["type"].replace("int_or_float", "_int_or_float")}
        assert made[name] == expected, name
    assert set(made) == set(table)


def test_what_has_no_default_and_no_choices_says_nothing_of_them() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--lowram", action="store_true")
    parser.add_argument("--args", nargs="*", choices=["a", "b"])

    assert describe(parser) == {
        "args": {"type": "str", "choices": ["a", "b"], "nargs": "*", "flags": ["--args"]},
        "lowram": {"type": "flag", "flags": ["--lowram"]},
        "seed": {"type": "int", "flags": ["--seed"]},
    }
