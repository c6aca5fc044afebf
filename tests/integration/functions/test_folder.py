"""A folder is judged without AWS as a run judges it: `./dev validate` and `./dev plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs
import pytest

from fine_tuning.limits import Limits
from local.preflight import __main__ as program
from local.preflight import command, folder, limits
from tests.functions_data import EVENTS, REPOSITORY, image_bytes
from tests.integration.functions.conftest import Stack
from tests.integration.functions.test_dataset_to_decision import GOOD, decide

CUT = image_bytes()[:-2000]
MANIFESTS = {
    "good": b'{"version": 1, "config": {"max_train_epochs": 3, "learning_rat": 1}}',
    "spot": b'{"version": 1, "spot": true, "instance_types": ["ml.g6.2xlarge", "ml.g5.2xlarge"]}',
    "validation": b'{"version": 1, "validation_split": 0.3}',
}


def lay(target: Path, manifest: bytes, files: Mapping[str, bytes]) -> Path:
    for path, content in {**files, "manifest.json": manifest}.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(content)
    return target


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("extra", [{}, {"10_sks cat/cut.jpg": CUT, "notes.md": b"x"}], ids=["whole", "cut"])
def test_the_report_is_the_one_that_a_run_writes(
    stack: Stack, tmp_path: Path, manifest: bytes, extra: dict[str, bytes]
) -> None:
    files = {**GOOD, **extra}
    run, _ = decide(stack, manifest, files)
    of_run = json.loads(stack.read(f"runs/{run['run_id']}/report.json"))
    allowed = Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, None)
    judged = folder.judge(lay(tmp_path, manifest, files), allowed, lambda done, total: None)
    assert judged.report == of_run
    assert judged.report["accepted"] is not bool(extra)
    assert judged.images == 3 + ("10_sks cat/cut.jpg" in extra)


@pytest.mark.parametrize(
    ("manifest", "files", "code", "accepted"),
    [
        (b'{"version": 1}', GOOD, 0, True),
        (b'{"version": 1}', {**GOOD, "10_sks cat/cut.jpg": CUT}, 1, False),
        (b"{", GOOD, 1, False),
        (b'{"version": 1, "images": 9}', GOOD, 1, False),
        (b'{"version": 1, "base_model": "s3://any-bucket/models/m.safetensors"}', GOOD, 0, True),
    ],
)
@pytest.mark.parametrize("name", ["validate", "plan"])
def test_the_exit_code_and_the_json_agree(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    manifest: bytes,
    files: dict[str, bytes],
    code: int,
    accepted: bool,
) -> None:
    dataset = str(lay(tmp_path, manifest, files))
    assert command.main([name, dataset, "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    jsonschema_rs.validate(json.loads((EVENTS / "report.schema.json").read_bytes()), report)
    assert report["accepted"] is accepted
    assert command.main([name, dataset]) == code
    shown = capsys.readouterr().out
    assert ("accepted: 3 images" in shown) is accepted
    assert ("Aspect buckets" in shown) is (accepted and name == "plan")


def test_what_is_no_dataset_is_a_mistake_of_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["validate", str(tmp_path)]) == 2
    assert '{"version": 1}' in capsys.readouterr().err
    assert command.main(["validate", str(tmp_path / "nowhere")]) == 2
    with pytest.raises(SystemExit, match="2"):
        command.main(["validate"])


def test_who_interrupts_it_gets_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "of_template", interrupt)
    assert program.main(["plan", str(lay(tmp_path, b'{"version": 1}', GOOD))]) == 130


def test_it_may_be_interrupted_while_the_rules_are_imported() -> None:
    program = (
        "import builtins, sys\nfrom local.preflight.__main__ import main\nreal = builtins.__import__\n"
        "def interrupted(name, *more):\n"
        "    if name == 'rich.console':\n        raise KeyboardInterrupt\n"
        "    return real(name, *more)\n"
        "builtins.__import__ = interrupted\nsys.exit(main(['plan', 'examples/photographs']))"
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'functions'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_a_name_is_shown_with_what_nobody_would_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["plan", str(lay(tmp_path, b'{"version": 1}', {**GOOD, "a\r.md": b"x"}))]) == 1
    assert "a\\r.md" in capsys.readouterr().out


def test_hidden_files_are_not_judged_as_they_are_not_dropped(tmp_path: Path) -> None:
    files = {**GOOD, ".git/config": b"x", "10_sks cat/.DS_Store": b"x"}
    judged = folder.judge(lay(tmp_path, b'{"version": 1}', files), limits.of_template(), lambda *_: None)
    assert not [f for f in judged.report["findings"] if f["path"].endswith((".DS_Store", "config"))]


def test_the_limits_are_the_templates_defaults() -> None:
    assert limits.of_template() == Limits("v25.2.2", ("ml.g5.8xlarge",), 50, 86400, None)


def test_it_needs_no_aws_at_all() -> None:
    program = (
        "import sys\nfrom local.preflight.__main__ import main\n"
        "code = main(['plan', 'examples/photographs'])\n"
        "assert not {'boto3', 'botocore', 'aws_lambda_powertools'} & set(sys.modules)\nsys.exit(code)"
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'functions'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "steps, on the first of these that AWS has" in done.stdout
