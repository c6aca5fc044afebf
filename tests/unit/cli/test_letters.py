"""Dead letters are read as EventBridge and Lambda leave them."""

import json
from typing import Any

import pytest

from local.cli import replay
from local.cli.failure import CommandError
from local.cli.letters import Letter, hop_of, read
from local.cli.replay import NotReplayedError, Queue, chosen, destination
from tests.contract.definitions import resources
from tests.functions_data import dropped, event

FUNCTION = "arn:aws:lambda:us-east-1:111122223333:function:validate"
PROJECT = "arn:aws:codebuild:us-east-1:111122223333:project/image"


def message(body: Any, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "m-1",
        "ReceiptHandle": "r-1",
        "Body": body if isinstance(body, str) else json.dumps(body),
        "Attributes": {"SentTimestamp": "1795520000000"},
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }


def of_function() -> Letter:
    """As Lambda's destination for failures has it."""
    return read(
        message(
            {
                "version": "1.0",
                "timestamp": "2026-11-24T12:00:00.000Z",
                "requestContext": {
                    "requestId": "q",
                    "functionArn": f"{FUNCTION}:$LATEST",
                    "condition": "RetriesExhausted",
                    "approximateInvokeCount": 3,
                },
                "requestPayload": dropped("datasets/cats/manifest.json", "v1"),
                "responseContext": {"statusCode": 200, "functionError": "Unhandled"},
                "responsePayload": {"errorType": "AccessDeniedError", "errorMessage": "No."},
            }
        )
    )


def of_rule(target: str = PROJECT) -> Letter:
    return read(
        message(
            event("codecommit-reference-updated"),
            TARGET_ARN=target,
            RULE_ARN="arn:aws:events:us-east-1:111122223333:rule/r",
            ERROR_CODE="NO_PERMISSIONS",
            ERROR_MESSAGE="The role may not.",
        )
    )


def test_the_letter_of_a_function_holds_its_event() -> None:
    letter = of_function()
    assert letter.target == FUNCTION
    assert letter.error == "AccessDeniedError: No."
    assert letter.subject.startswith("s3://")
    assert letter.subject.endswith("/datasets/cats/manifest.json")
    assert destination(letter) == "lambda validate"


def test_the_letter_of_a_rule_is_its_event() -> None:
    letter = of_rule()
    assert (letter.target, letter.error) == (PROJECT, "NO_PERMISSIONS: The role may not.")
    assert letter.subject == "CodeCommit Repository State Change 4c925148EXAMPLE"
    assert destination(letter) == "codebuild image"
    assert destination(of_rule(FUNCTION)) == "lambda validate"


@pytest.mark.parametrize("body", ["no JSON", "[]", "{}", '{"requestPayload": 7}'])
def test_what_is_no_letter_is_shown_and_stays(body: str) -> None:
    letter = read(message(body))
    assert letter.subject == "no event"
    with pytest.raises(NotReplayedError):
        destination(letter)


def test_a_target_that_nothing_here_can_reach_is_refused() -> None:
    with pytest.raises(NotReplayedError, match="topic"):
        destination(of_rule("arn:aws:sns:us-east-1:111122223333:topic"))


def test_every_queue_of_the_template_is_a_hop() -> None:
    hops = {hop_of(name) for name in resources("AWS::SQS::Queue")}
    assert None not in hops
    assert {"dataset", "training", "ended-execution", "image-source"} <= hops
    assert hop_of("Inbox") is None


def test_hops_are_named_by_name_or_by_the_queues_arn() -> None:
    queues = [Queue("dataset", "https://sqs/1/s-Dataset-X"), Queue("training", "https://sqs/1/s-Training-Y")]
    assert chosen(queues, []) == queues
    assert chosen(queues, ["training"]) == queues[1:]
    assert chosen(queues, ["arn:aws:sqs:us-east-1:1:s-Dataset-X"]) == queues[:1]
    with pytest.raises(CommandError, match="dataset, training"):
        chosen(queues, ["datasets"])


def test_no_function_of_the_template_may_take_longer_than_its_answer_is_waited_for() -> None:
    slowest = max(each.get("Timeout", 60) for each in resources("AWS::Serverless::Function").values())
    assert replay.PATIENT.read_timeout > slowest
    assert slowest <= replay.HIDDEN_SECONDS
