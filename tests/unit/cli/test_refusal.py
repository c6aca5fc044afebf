"""What a real account refuses is told in a sentence, with what a person does about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)

from local.cli import commands, dropping, image_source, records, refusal, stopping
from local.cli.dataset import Dropped
from local.cli.failure import CommandError


def refused(code: str, operation: str = "StopExecution", message: str = "No.") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (refused("ExpiredTokenException"), "Log in again"),
        (UnauthorizedSSOTokenError(), "Log in again"),
        (SSOTokenLoadError(error_msg="gone"), "Log in again"),
        (refused("AccessDeniedException"), "Have the permission given"),
        (refused("AccessDenied"), "Have the permission given"),
        (
            refused("AccountLimitExceededException"),
            "`Concurrently running builds for Linux/Large environment`",
        ),
        (refused("ThrottlingException"), "in a moment"),
        (EndpointConnectionError(endpoint_url="https://states"), "in a moment"),
        (ReadTimeoutError(endpoint_url="https://states"), "in a moment"),
        (refused("InvalidArn"), "AWS refuses it"),
    ],
)
def test_every_refusal_is_a_sentence_with_its_cause_and_its_remedy(error: Exception, remedy: str) -> None:
    with pytest.raises(CommandError) as told, refusal.told():
        raise error
    assert remedy in str(told.value)
    assert str(error) in str(told.value)
    assert "\n" not in str(told.value)


def test_an_upload_that_is_refused_is_told_by_its_cause() -> None:
    def upload() -> None:
        try:
            raise refused("AccessDenied", "PutObject")
        except ClientError as error:
            raise S3UploadFailedError(f"Failed to upload: {error}")  # noqa: B904  boto3 names no cause either (s3/transfer.py)

    with pytest.raises(CommandError, match=r"PutObject.*Have the permission"), refusal.told():
        upload()


class Refusing:
    """A client of whom every call is refused."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise self.error

        return call


def in_an_account(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    account = SimpleNamespace(
        embedded=None, stack_name="mine", client=lambda name: client, resource=lambda name: client
    )
    monkeypatch.setattr(commands, "account_in_use", lambda: account)
    monkeypatch.setattr(commands, "place_of", lambda account: "AWS account 1")
    monkeypatch.setattr(commands, "stack_outputs", lambda account: {"ImageSourceRepositoryName": "source"})


def test_a_command_that_is_refused_ends_with_exit_code_1_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_an_account(monkeypatch, Refusing(refused("AccessDeniedException", "ListStackResources")))
    assert commands.main(["replay"]) == 1
    assert "ListStackResources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "told"),
    [("ValidationError", "no stack 'mine' was found"), ("AccessDenied", "Have the permission given")],
)
def test_a_stack_that_may_not_be_looked_at_is_not_one_that_is_missing(
    code: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack_outputs = commands.stack_outputs
    in_an_account(monkeypatch, Refusing(refused(code, "DescribeStacks")))
    monkeypatch.setattr(commands, "stack_outputs", stack_outputs)
    assert commands.main(["runs"]) == 1
    assert told in capsys.readouterr().err


def test_whose_credentials_end_while_a_run_is_followed_reads_that_it_goes_on() -> None:
    account: Any = SimpleNamespace(embedded=None)
    table = Refusing(refused("ExpiredTokenException", "GetItem"))
    with pytest.raises(
        CommandError, match=r"The run goes on.*: ./dev runs shows cats-1, ./dev stop cats-1 .*Log in again"
    ):
        dropping.follow_run(account, table, "cats-1")


def test_whose_credentials_end_after_the_drop_reads_that_it_was_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dropping.dataset, "left_over", lambda *_: [])
    dropped = Dropped("b", "datasets/cats/manifest.json", "v", 1, 1, datetime.now(UTC))
    monkeypatch.setattr(dropping.dataset, "drop", lambda *_, **__: dropped)
    table = Refusing(refused("ExpiredTokenException", "Query"))
    monkeypatch.setattr(dropping.records, "table_of", lambda *_: table)
    account: Any = SimpleNamespace(embedded=None, client=lambda name: None)
    with pytest.raises(CommandError, match=r"The dataset is dropped.*Log in again"):
        dropping.run(account, {"BucketName": "b"}, tmp_path, None, follow=True)


def test_whose_credentials_end_while_a_run_is_stopped_reads_that_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([{"run_id": "cats-1", "status": "TRAINING", "execution_arn": "arn"}])

    def find(table: Any, run_id: str) -> dict[str, Any]:
        for record in answers:
            return record
        raise refused("ExpiredTokenException", "GetItem")

    monkeypatch.setattr(records, "find", find)
    monkeypatch.setattr(records, "table_of", lambda *_: None)
    account: Any = SimpleNamespace(
        embedded=None, client=lambda name: SimpleNamespace(stop_execution=lambda **_: None)
    )
    with pytest.raises(CommandError, match=r"Its flow is stopped.*Log in again"):
        stopping.run(account, {}, "cats-1")


def test_whose_credentials_end_while_a_build_is_followed_reads_that_the_push_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_source, "branch_tip", lambda *_: None)
    monkeypatch.setattr(image_source, "push", lambda *_: "a" * 40)
    account: Any = SimpleNamespace(embedded=None, client=lambda name: Refusing(UnauthorizedSSOTokenError()))
    outputs = {"ImageSourceRepositoryName": "source", "ImageBuildProjectName": "build"}
    with pytest.raises(CommandError, match=r"What is pushed stays pushed.*Log in again"):
        image_source.run(account, outputs)
