"""What was not processed is processed once its cause is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.cli import replay
from tests.end_to_end import source
from tests.end_to_end.conftest import Deployer
from tests.end_to_end.journey import Stack, dataset, eventually, quick_manifest
from tests.end_to_end.test_permissions import dead_letters, without


def test_a_drop_that_could_not_be_received_runs_after_a_replay(
    stack: Stack, deployer: Deployer, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a drop whose function may not start the flow, tried as often as Lambda tries
    with without(stack, "ValidateManifestFunctionRole", "StartTheFlow"):
        prefix = stack.drop("unreceived", dataset(2), quick_manifest())
        eventually(lambda: dead_letters(deployer, "dataset") == 1, "a dead letter", 60)

        # When it is only shown, or replayed too early, it stays
        assert replay.run(deployer.account, ["dataset"], dry_run=True) == 0
        assert f"{prefix}manifest.json" in capsys.readouterr().out
        assert replay.run(deployer.account, ["dataset"], dry_run=False) == 1
        told = capsys.readouterr().out
        assert "failed again" in told
        assert "0 replayed, 1 left" in told
        assert dead_letters(deployer, "dataset") == 1

    # Then, once that is mended, it runs to its end, and nothing is left to replay
    assert replay.run(deployer.account, ["dataset"], dry_run=False) == 0
    assert "1 replayed, 0 left" in capsys.readouterr().out
    record = stack.record(prefix)
    assert record["status"] == "COMPLETED"
    assert replay.run(deployer.account, ["dataset"], dry_run=False) == 0
    assert "0 replayed, 0 left" in capsys.readouterr().out
    assert len(stack.records(prefix)) == 1
    assert len(stack.mails(record["run_id"], "completed")) == 1


def test_a_push_that_started_no_build_is_built_after_a_replay(
    stack: Stack, deployer: Deployer, tmp_path: Path
) -> None:
    clone = source.clone(stack, tmp_path)
    before = source.builds(stack)
    letters = dead_letters(deployer, "image-source")
    with without(stack, "ImageBuildRuleRole", "StartTheBuild"):
        source.push_change(clone, "main", "replayed.txt", "x")
        eventually(lambda: dead_letters(deployer, "image-source") > letters, "a dead letter")
    assert source.builds(stack) == before
    assert replay.run(deployer.account, ["image-source"], dry_run=False) == 0
    assert len(source.builds(stack)) > len(before)
