"""Whatever is dropped: every problem is told with file and remedy, nothing is trained, no file is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.end_to_end.journey import Stack, dataset, image, quick_manifest


@dataclass(frozen=True)
class BadDrop:
    """A dataset with something wrong, and what the e-mail must say about it."""

    name: str
    files: Callable[[], dict[str, bytes]]
    manifest: object
    told: list[str]
    findings: int = 1
    reaches_the_flow: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


def _with(**more: bytes) -> Callable[[], dict[str, bytes]]:
    return lambda: dataset() | {path.replace("__", "/"): body for path, body in more.items()}


TRUNCATED = image(1, (640, 640))[:-2000]

BAD_DROPS = [
    BadDrop("not-json", dataset, b'{"version": 1,', ["manifest.json", "JSON"], reaches_the_flow=False),
    BadDrop(
        "not-utf8",
        dataset,
        b'{"version": 1, "licence": "\xff\xfe"}',
        ["manifest.json", "UTF-8"],
        reaches_the_flow=False,
    ),
    BadDrop(
        "schema",
        dataset,
        {"version": 7, "triger_word": "phx", "repeats": -1},
        ["version", "triger_word", "trigger_word", "repeats"],
        findings=3,
        reaches_the_flow=False,
    ),
    BadDrop(
        "too-large",
        dataset,
        json.dumps({"version": 1, "licence": "x" * (1024 * 1024)}).encode(),
        ["manifest.json", "1 MiB"],
        reaches_the_flow=False,
    ),
    BadDrop("no-images", lambda: {"2_phx thing/readme.txt": b"nothing here"}, quick_manifest(), ["image"]),
    BadDrop(
        "unreadable-image",
        lambda: dataset() | {"2_phx thing/bad.jpg": TRUNCATED, "2_phx thing/bad.txt": b"phx"},
        quick_manifest(),
        ["bad.jpg"],
    ),
    BadDrop(
        "two-unreadable-images",
        lambda: dataset() | {"2_phx thing/a.png": b"", "2_phx thing/b.jpg": b"no picture at all"},
        quick_manifest(),
        ["a.png", "b.jpg"],
        findings=2,
    ),
    BadDrop(
        "not-toml",
        lambda: dataset() | {"kohya-sdxl-config.toml": b"resolution = [unclosed\n"},
        quick_manifest(),
        ["kohya-sdxl-config.toml", "TOML"],
    ),
    BadDrop(
        "too-expensive",
        dataset,
        quick_manifest(max_cost_usd=0.01),
        ["max_cost_usd"],
    ),
]


@pytest.mark.parametrize("bad", BAD_DROPS, ids=lambda bad: str(bad.name))
def test_a_bad_drop_is_rejected_with_every_problem(stack: Stack, bad: BadDrop) -> None:
    # Given a dataset with something wrong in it
    name = f"bad-{bad.name}"
    prefix = f"datasets/{name}/"
    stack.drop(name, bad.files(), bad.manifest)
    before = stack.versions(prefix)

    # When its run has ended
    record = stack.record(prefix)

    # Then the record, the report, the mail and the execution tell the truth
    assert record["status"] == "REJECTED"
    report = stack.report(record)
    errors = [each for each in report["findings"] if each["severity"] == "error"]
    assert report["accepted"] is False
    assert len(errors) >= bad.findings
    assert all(each["remedy"] for each in errors)
    body = stack.mail(record["run_id"], "rejected")
    for words in bad.told:
        assert words in body
    for error in errors:
        assert error["path"] in body
    assert f"s3://{stack.bucket}/runs/{record['run_id']}/report.json" in body
    if bad.reaches_the_flow:
        assert stack.execution_ended(record) == "FAILED"
    # and no GPU was paid for, and the user's files are as they were
    assert stack.training_jobs(record["run_id"]) == []
    assert stack.versions(prefix) == before
    assert len(stack.mails(record["run_id"])) == 1


def test_a_mail_lists_the_first_20_problems_and_counts_the_rest(stack: Stack) -> None:
    broken = {f"2_phx thing/broken-{number:02}.jpg": b"no picture" for number in range(25)}
    prefix = stack.drop("bad-many", dataset() | broken, quick_manifest())
    record = stack.record(prefix)
    body = stack.mail(record["run_id"], "rejected")
    assert body.count("broken-") == 20
    assert "25" in body
    assert len([each for each in stack.report(record)["findings"] if each["severity"] == "error"]) == 25
