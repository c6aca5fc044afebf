"""What is said about a bad manifest, and what a good one means."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fine_tuning import manifest
from fine_tuning.paths import is_inside, shown
from tests.functions_data import EVENTS, REPOSITORY

BAD = [
    (b"", "manifest-json-invalid", "line 1, column 1"),
    (b"\n {x}", "manifest-json-invalid", "line 2, column 3: Expecting property name"),
    (b"\xef\xbb\xbf{}", "manifest-json-byte-order-mark", "byte order mark"),
    (b"\xff\xfe{\x00}\x00", "manifest-json-byte-order-mark", "byte order mark"),
    (b'{"version": 1, "licence": "\xff"}', "manifest-json-not-utf8", "byte 28"),
    (b'{"version": 1, "version": 1}', "manifest-json-repeated-key", "'version' appears twice"),
    (b'{"version": 1, "max_cost_usd": NaN}', "manifest-json-not-a-number", "NaN"),
    (b'{"version": 1, "max_cost_usd": -Infinity}', "manifest-json-not-a-number", "-Infinity"),
    (b"[" * 100_000, "manifest-json-too-deep", "nested"),
    (b'{"version": ' + b"1" * 5000 + b"}", "manifest-json-invalid", "too large"),
    (b'{"version": 1, "licence": "\\ud83d"}', "manifest-json-invalid", "half of a character"),
    (b"[1]", "manifest-not-an-object", "a list"),
    (b"null", "manifest-not-an-object", "null"),
    (b"{}", "manifest-invalid", "version"),
    (b'{"version": 2}', "manifest-invalid", "/version"),
    (b'{"version": 1, "reapeats": 3}', "manifest-unknown-key", "Did you mean 'repeats'?"),
    (b'{"version": 1, "files": [{"path": "a", "siz": 1}]}', "manifest-unknown-key", "Did you mean 'size'?"),
    (b'{"version": 1, "files": [{"path": "./a.jpg"}]}', "manifest-path-outside", "has a part '.'"),
    (b'{"version": 1, "files": [{"path": "./../a"}]}', "manifest-path-outside", "leaves the dataset"),
    (b'{"version": 1, "preset": "sdxl-charcter"}', "manifest-invalid", "Did you mean 'sdxl-character'?"),
    (b'{"version": 1, "files": [{"path": "/etc/passwd"}]}', "manifest-path-outside", "leaves the dataset"),
    (b'{"version": 1, "files": [{"path": "a/../../b"}]}', "manifest-path-outside", "/files/0/path"),
    (b'{"version": 1, "files": [{"path": "a\\\\b"}]}', "manifest-path-outside", "leaves the dataset"),
    (b'{"version": 1, "files": [{"path": "%2e%2E/b"}]}', "manifest-path-outside", "leaves the dataset"),
    (
        b'{"version": 1, "files": [{"path": "%252e%252e%252fb"}]}',
        "manifest-path-outside",
        "leaves the dataset",
    ),
    (b'{"version": 1, "files": [{"path": "a%00.jpg"}]}', "manifest-path-outside", "leaves the dataset"),
    (b'{"version": 1, "files": [{"path": "a\\u0000.jpg"}]}', "manifest-path-outside", "leaves the dataset"),
    (
        b'{"version": 1, "files": [{"path": "s3://other/a.jpg"}]}',
        "manifest-path-outside",
        "leaves the dataset",
    ),
    (
        '{"version": 1, "files": [{"path": "caf\u00e9"}, {"path": "cafe\u0301"}]}'.encode(),
        "manifest-path-ambiguous",
        "/files/1/path",
    ),
    (
        b'{"version": 1, "files": [{"path": "a.jpg"}, {"path": "A.JPG"}]}',
        "manifest-path-ambiguous",
        "'a.jpg'",
    ),
    (b'{"version": 1, "files": [{"path": "a"}, {"path": "a"}]}', "manifest-path-repeated", "/files/1/path"),
    (b'{"version": 1, "files": [{"path": "a"}], "images": 1}', "manifest-invalid", "`files` and `images`"),
    (b'{"version": 1, "repeats": 0}', "manifest-invalid", "/repeats"),
    (b'{"version": 1, "spot": "yes"}', "manifest-invalid", "/spot"),
    (b'{"version": 1, "trigger_word": "a/b"}', "manifest-invalid", "/trigger_word"),
    (b'{"version": 1, "base_model": "../model.ckpt"}', "manifest-invalid", "/base_model"),
    (
        b'{"version": 1, "base_model": "s3://bucket/models//x.safetensors"}',
        "manifest-invalid",
        "At /base_model: there is '//' in the key of s3://bucket/models//x.safetensors",
    ),
    (b'{"version": 1, "base_model": "s3://bucket//x.safetensors"}', "manifest-invalid", "/base_model"),
    (b'{"version": 1, "config": {"a": {"b": 1}}}', "manifest-invalid", "/config/a"),
]


@pytest.mark.parametrize(("content", "code", "said"), BAD, ids=[f"{n}-{b[1]}" for n, b in enumerate(BAD)])
def test_a_bad_manifest_is_refused_with_code_place_and_remedy(content: bytes, code: str, said: str) -> None:
    accepted, findings = manifest.judge(content)
    assert accepted is None
    (finding,) = findings
    assert (finding.code, finding.severity, finding.path) == (code, "error", "manifest.json")
    assert said in finding.message
    assert finding.remedy


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        ("", "line 1, column 1: the file is empty", 'is {"version": 1}'),
        (" \n", "line 1, column 1: the file is empty", 'is {"version": 1}'),
        ("// mine\n{}", "line 1, column 1: JSON has no comments", "comments out"),
        ('{\n"version": 1, # mine\n}', "line 2, column 15: JSON has no comments", "comments out"),
        ('{"version": 1 /* mine */}', "line 1, column 15: JSON has no comments", "comments out"),
        ("{“version”: 1}", "line 1, column 2: “ is not a straight", 'Write " in place of “.'),
        ("{'version': 1}", "line 1, column 2: ' is not a straight", "Write \" in place of '."),
        ('{"version": 1, "licence": ‘mine’}', "column 27: ‘ is not a straight", 'Write " in place of ‘.'),
        ('{\n"version": 1,\n}', "line 2, column 13: no value follows this comma", "Take the comma out."),
        ('{"version": 1, "instance_types": ["a", ]}', "column 38: no value follows", "Take the comma out."),
        ('{"base_model": "C:\\models"}', "column 19: a backslash that stands alone", "/ or \\\\ in place"),
        ('{"base_model": "C:\\users"}', "a backslash that stands alone", "/ or \\\\ in place"),
        ("version: 1\n", "line 1, column 1: this does not begin as JSON does", "not YAML or TOML"),
        ("version = 1\n", "line 1, column 1: this does not begin as JSON does", "not YAML or TOML"),
        ('{"version": 1 "spot": true}', "column 15: Expecting ',' delimiter", "any JSON checker"),
    ],
)
def test_what_people_write_in_place_of_json_is_named_with_its_remedy(
    content: str, said: str, remedy: str
) -> None:
    _, (finding,) = manifest.judge(content.encode())
    assert finding.code == "manifest-json-invalid"
    assert said in finding.message
    assert remedy in finding.remedy


def test_every_key_is_listed_once_and_on_a_line_that_a_mail_does_not_cut() -> None:
    unknown = {f"nonsense{number}": 1 for number in range(6)} | {"reapeats": 1}
    _, findings = manifest.judge(json.dumps({"version": 1, **unknown}).encode())
    remedies = [finding.remedy for finding in findings]
    listing = [remedy for remedy in remedies if "trigger_word" in remedy]
    assert len(remedies) == 7
    assert len(listing) == 1
    assert listing[0].endswith("force.")
    assert len(f"-> {listing[0]}") <= 220
    assert "Correct or remove it." in remedies


def test_of_a_bad_value_the_remedy_names_the_good_ones_whole() -> None:
    _, (finding,) = manifest.judge(b'{"version": 1, "preset": "sdxl-charcter"}')
    assert finding.remedy == "Write one of: sdxl-character, sdxl-style, sdxl-object, sample-2024."
    _, (finding,) = manifest.judge(b'{"version": 1, "max_cost_usd": "5 USD"}')
    assert "a number such as 5" in finding.remedy


def test_every_violation_is_told_at_once() -> None:
    _, findings = manifest.judge(
        b'{"version": 7, "triger_word": "x", "repeats": -1, "files": [{"path": "../x"}]}'
    )
    assert sorted(finding.code for finding in findings) == [
        "manifest-invalid",
        "manifest-invalid",
        "manifest-path-outside",
        "manifest-unknown-key",
    ]


def test_the_limit_is_one_mebibyte() -> None:
    assert manifest.too_large(1024 * 1024) is None
    finding = manifest.too_large(1024 * 1024 + 1)
    assert finding is not None
    assert "1 MiB" in finding.message


@pytest.mark.parametrize(
    "path", sorted((EVENTS / "manifests").glob("*.json")), ids=lambda path: str(path.stem)
)
def test_the_example_manifests_are_accepted(path: object) -> None:
    accepted, findings = manifest.judge((EVENTS / "manifests" / str(path)).read_bytes())
    assert findings == []
    assert accepted is not None


def test_one_of_the_examples_shows_every_key() -> None:
    shown: set[str] = set()
    for path in (EVENTS / "manifests").glob("*.json"):
        shown |= set(json.loads(path.read_bytes()))
    assert shown == set(json.loads((EVENTS / "manifest.schema.json").read_bytes())["properties"])


def test_defaults_are_those_of_the_schema() -> None:
    accepted, _ = manifest.judge(b'{"version": 1}')
    schema = json.loads((EVENTS / "manifest.schema.json").read_bytes())
    assert accepted is not None
    for name, rule in schema["properties"].items():
        if "default" in rule:
            assert getattr(accepted, name) == rule["default"], name


def test_an_integer_may_be_written_as_json_writes_it() -> None:
    accepted, _ = manifest.judge(b'{"version": 1.0, "repeats": 3.0}')
    assert accepted is not None
    assert isinstance(accepted.repeats, int)


def test_the_functions_copy_of_the_schema_is_the_schema() -> None:
    original = (EVENTS / "manifest.schema.json").read_bytes()
    assert (REPOSITORY / "functions/fine_tuning/manifest.schema.json").read_bytes() == original
    jsonschema_rs.meta.validate(json.loads(original))
    jsonschema_rs.meta.validate(json.loads((EVENTS / "report.schema.json").read_bytes()))


def test_a_key_of_any_length_makes_no_long_mail() -> None:
    _, findings = manifest.judge(json.dumps({"version": 1, "config": {"k" * 5000: {}}}).encode())
    assert findings
    assert all(len(finding.message) < 500 for finding in findings)


def test_a_percent_sign_in_a_name_is_only_a_percent_sign() -> None:
    accepted, findings = manifest.judge(
        b'{"version": 1, "files": [{"path": "100% cat.jpg"}, {"path": "a%20b.jpg"}]}'
    )
    assert findings == []
    assert accepted is not None


@given(st.binary(max_size=200))
def test_no_bytes_make_the_judge_fail(content: bytes) -> None:
    accepted, findings = manifest.judge(content)
    assert (accepted is None) == bool(findings)


@given(st.text(min_size=1, max_size=30))
def test_a_path_that_is_inside_never_names_a_parent(path: str) -> None:
    if is_inside(path):
        assert not path.startswith("/")
        assert ".." not in path.split("/")


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("base_model", "a/b", "Add @main"),
        ("base_model", "C:/x.ckpt", "s3://<this bucket>"),
        ("trigger_word", "_sks", "no underscore at the beginning"),
        ("instance_types", ["x"], "such as ml.g5.8xlarge"),
        ("sample_prompts", [""], "1 to 500 characters"),
    ],
)
def test_no_regular_expression_is_shown_where_a_sentence_says_what_belongs_there(
    key: str, value: Any, remedy: str
) -> None:
    accepted, (finding,) = manifest.judge(json.dumps({"version": 1, key: value}).encode())
    assert accepted is None
    assert "^" not in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("Icon\r", r"Icon\r"),
        ("a\u202eb/c\x00", r"a\u202eb/c\x00"),
        ("a\udc84.jpg", r"a\udc84.jpg"),
        ("10_sks cat/Käthe 猫.jpg", "10_sks cat/Käthe 猫.jpg"),
        ("a\\b", "a\\b"),
    ],
)
def test_what_nobody_would_see_of_a_path_is_written_out(path: str, seen: str) -> None:
    assert shown(path) == seen
