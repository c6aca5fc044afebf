"""The manifest: its judgement, and what the later steps read of it.

`manifest.schema.json` is the generated copy of events/manifest.schema.json, the one list of keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_tuning import strict_json
from fine_tuning.base_model import without_revision
from fine_tuning.findings import Finding, error
from fine_tuning.nearest import did_you_mean
from fine_tuning.paths import is_downloadable, is_inside, same_name
from fine_tuning.run import MANIFEST_NAME

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

LARGEST_MANIFEST = 1024 * 1024  # bytes
DEFAULT_PRESET = "sdxl-character"
DEFAULT_REPEATS = 10
_SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")
_SHOWN_VALUE = 80  # characters of a bad value that a message repeats


@dataclass(frozen=True)
class DeclaredFile:
    """A file that the manifest promises. Size in bytes; None where it says nothing."""

    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class RecipeWishes:
    """What the application may choose beyond the preset, where nobody sets it."""

    scale_batch: bool = True
    scale_learning_rate: bool = True


@dataclass(frozen=True)
class Manifest:
    """An accepted manifest with its defaults filled in. `document` is what the user wrote."""

    document: Mapping[str, Any]
    trigger_word: str | None = None
    repeats: int = DEFAULT_REPEATS
    preset: str = DEFAULT_PRESET
    config: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[DeclaredFile, ...] = ()
    images: int | None = None
    sample_prompts: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    spot: bool = False
    max_cost_usd: float | None = None
    base_model: str | None = None
    validation_split: float | None = None
    validation_patience: int = 5
    recipe: RecipeWishes = RecipeWishes()
    privacy: bool = False
    licence: str | None = None
    force: bool = False

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Manifest:
        """Of a document that `judge` accepted."""
        given = {key: value for key, value in document.items() if key != "version"}
        for name in ("repeats", "images"):
            if name in given:
                given[name] = int(given[name])  # to JSON Schema 10.0 is an integer
        for name in ("sample_prompts", "instance_types"):
            given[name] = tuple(given.get(name, ()))
        given["files"] = tuple(DeclaredFile(**declared) for declared in given.get("files", ()))
        given["recipe"] = RecipeWishes(**given.get("recipe", {}))
        return cls(document=document, **given)


def too_large(size: int) -> Finding | None:
    """The finding for a manifest of more than 1 MiB; asked before it is read."""
    if size <= LARGEST_MANIFEST:
        return None
    return error(
        "manifest-too-large",
        MANIFEST_NAME,
        f"The manifest has {size} bytes; 1 MiB ({LARGEST_MANIFEST} bytes) is the limit.",
        "Leave out `files`, or give `images`, the number of images, instead.",
    )


def judge(content: bytes) -> tuple[Manifest | None, list[Finding]]:
    """The manifest of the object's bytes, or None and every reason against it."""
    try:
        document = strict_json.parse(content)
    except strict_json.NotStrictJsonError as refusal:
        message = f"The manifest is not strict JSON: {refusal}."
        remedy = refusal.remedy or _JSON_REMEDIES[refusal.code]
        return None, [error(f"manifest-{refusal.code}", MANIFEST_NAME, message, remedy)]
    if not isinstance(document, dict):
        message = f"The manifest holds {_kind(document)}, not an object."
        return None, [error("manifest-not-an-object", MANIFEST_NAME, message, 'Begin with {"version": 1}.')]
    findings = [finding for problem in _validator().iter_errors(document) for finding in _explain(problem)]
    findings += _misplaced_paths(document.get("files"))
    findings += _undownloadable_model(document.get("base_model"))
    return (None, findings) if findings else (Manifest.from_document(document), [])


_JSON_REMEDIES = {
    "json-byte-order-mark": "Save the file as UTF-8 without byte order mark.",
    "json-not-utf8": "Save the file as UTF-8.",
    "json-invalid": "Correct the file there; any JSON checker shows the place.",
    "json-too-deep": "Write the manifest as docs and schema show; it needs four levels.",
    "json-repeated-key": "Keep one of the two.",
    "json-not-a-number": "Write a finite number.",
}


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_SCHEMA_FILE.read_bytes())
    return schema


@cache
def _validator() -> Validator:
    import jsonschema_rs  # only the first step judges a manifest

    return jsonschema_rs.Draft202012Validator(_schema())


def _explain(problem: ValidationError) -> list[Finding]:
    """A schema violation in words, with the JSON pointer of the value; one finding for each unknown key."""
    place = "".join(f"/{str(part)[:_SHOWN_VALUE]}" for part in problem.instance_path)
    where = f"At {place}: " if place else ""
    rule = problem.kind.name
    if rule == "additionalProperties":
        return list(
            _unknown_keys(where, problem.kind.as_dict()["unexpected"], _known_keys(problem.instance_path))
        )
    if rule == "not":
        return [
            error(
                "manifest-invalid", MANIFEST_NAME, "Both `files` and `images` are given.", "Give one of them."
            )
        ]
    if not place:
        message = f"{_shortened(problem.message)}."
        return [error("manifest-invalid", MANIFEST_NAME, message, 'Begin with {"version": 1}.')]
    if place == "/base_model" and isinstance(problem.instance, str) and without_revision(problem.instance):
        message = f"{where}'{_shortened(problem.instance)}' says no revision."
        return [error("manifest-invalid", MANIFEST_NAME, message, "Add @main, or @ and a commit.")]
    schema = _schema_at(problem.instance_path)
    if rule == "enum" and isinstance(problem.instance, str):
        near = did_you_mean(problem.instance, schema["enum"])
        message = f"{where}'{_shortened(problem.instance)}' is none of those that there are.{near}"
        return [
            error("manifest-invalid", MANIFEST_NAME, message, f"Write one of: {', '.join(schema['enum'])}.")
        ]
    description = schema.get("description")
    remedy = (
        f"What belongs there: {description}"
        if description
        else "Correct it as events/manifest.schema.json says."
    )
    message = _shortened(problem.message)
    if rule == "pattern":  # a regular expression explains nothing
        message = (
            f"{json.dumps(_shortened(str(problem.instance)), ensure_ascii=False)} is not what belongs there"
        )
    return [error("manifest-invalid", MANIFEST_NAME, f"{where}{message}.", remedy)]


def _unknown_keys(where: str, unknown: Sequence[str], known: Sequence[str]) -> Iterator[Finding]:
    """The first that resembles none of those that there are names them all."""
    listed = False
    for key in unknown:
        near = did_you_mean(key, known)
        remedy = "Correct or remove it." if near else "Remove it."
        if not near and not listed:
            remedy, listed = f"Remove it. Keys: {', '.join(known)}.", True
        message = f"{where}'{key[:_SHOWN_VALUE]}' is not a key.{near}"
        yield error("manifest-unknown-key", MANIFEST_NAME, message, remedy)


def _schema_at(path: list[str | int]) -> dict[str, Any]:
    """The subschema that describes the value at an instance path; empty where none does."""
    schema: dict[str, Any] = _schema()
    for part in path:
        below = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        if not isinstance(below, dict):
            return {}
        schema = below
    return schema


def _known_keys(path: list[str | int]) -> list[str]:
    return list(_schema_at(path).get("properties", {}))


def _misplaced_paths(files: Any) -> list[Finding]:
    """Paths that leave the dataset or could name two things.

    What is no list of paths is the schema's business.
    """
    findings: list[Finding] = []
    seen: dict[str, str] = {}
    for number, declared in enumerate(files if isinstance(files, list) else ()):
        path = declared.get("path") if isinstance(declared, dict) else None
        if not isinstance(path, str) or not path:
            continue
        where = f"At /files/{number}/path: '{path[:_SHOWN_VALUE]}'"
        if not is_inside(path):
            remedy = "Write the path relative to the manifest, with forward slashes and without '.' and '..'."
            without_dots = "/".join(part for part in path.split("/") if part != ".")
            why = "has a part '.'" if is_inside(without_dots) else "leaves the dataset"
            findings.append(error("manifest-path-outside", MANIFEST_NAME, f"{where} {why}.", remedy))
            continue
        other = seen.get(same_name(path))
        if other == path:
            message = f"{where} is declared twice."
            findings.append(error("manifest-path-repeated", MANIFEST_NAME, message, "Declare it once."))
        elif other is not None:
            message = (
                f"{where} differs from '{other[:_SHOWN_VALUE]}' only in case or in how accents are written."
            )
            remedy = "Rename one of the two files."
            findings.append(error("manifest-path-ambiguous", MANIFEST_NAME, message, remedy))
        seen.setdefault(same_name(path), path)
    return findings


def _undownloadable_model(address: Any) -> list[Finding]:
    """An address whose key SageMaker does not download; what is no address is the schema's business."""
    if not isinstance(address, str) or not address.startswith("s3://"):
        return []
    if is_downloadable(address.removeprefix("s3://").partition("/")[2]):
        return []
    message = f"At /base_model: there is '//' in the key of {_shortened(address)}; SageMaker downloads no such object."
    remedy = "Copy the model to an address with single slashes and name that one."
    return [error("manifest-invalid", MANIFEST_NAME, message, remedy)]


def _shortened(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:200]} … {message[-90:]}"


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
