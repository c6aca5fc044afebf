"""Another version of the emulator is noticed when the server starts."""

import json
from types import ModuleType

import pytest

from local.embedded_aws.patching import replace, replace_import, replace_in_text


@pytest.fixture
def emulator() -> ModuleType:
    module = ModuleType("emulator")
    module.operation = lambda request: f"old {request}"  # type: ignore[attr-defined]
    module.PROGRAM = "a b c"  # type: ignore[attr-defined]
    return module


def test_replacing_gives_what_was_there(emulator: ModuleType) -> None:
    known = replace(emulator, "operation", lambda request: f"new {known(request)}")
    assert emulator.operation("x") == "new old x"


def test_replacing_what_is_gone_is_an_error(emulator: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"emulator has no moved.*1\.5\.33"):
        replace(emulator, "moved", print)


@pytest.mark.parametrize("old", ["d", ""])
def test_replacing_text_that_is_not_there_exactly_once_is_an_error(emulator: ModuleType, old: str) -> None:
    with pytest.raises(RuntimeError, match="has changed"):
        replace_in_text(emulator, "PROGRAM", old, "x")
    assert emulator.PROGRAM == "a b c"


def test_a_replaced_part_of_an_import_is_seen_by_that_module_alone(emulator: ModuleType) -> None:
    emulator.json = json  # type: ignore[attr-defined]
    replace_import(emulator, "json", loads=str.upper)
    assert emulator.json.loads("x") == "X"
    assert emulator.json.dumps({}) == json.dumps({}) == "{}"
    assert json.loads("1") == 1


@pytest.mark.parametrize(("name", "part"), [("json", "moved"), ("moved", "loads"), ("PROGRAM", "upper")])
def test_replacing_a_part_of_an_import_that_is_not_there_is_an_error(
    emulator: ModuleType, name: str, part: str
) -> None:
    emulator.json = json  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="has changed"):
        replace_import(emulator, name, **{part: print})
