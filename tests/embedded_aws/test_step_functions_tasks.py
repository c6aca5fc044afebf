"""Task tokens, time limits, stopping and starting behave as Step Functions documents."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.flows import AND_WAIT, Flows, task
from tests.embedded_aws.running import RunningEmbeddedAws, allow, policy_document, wait_for


@pytest.fixture
def queue(aws: RunningEmbeddedAws, unique: str) -> str:
    return str(aws.client("sqs").create_queue(QueueName=unique)["QueueUrl"])


@pytest.fixture
def received(aws: RunningEmbeddedAws, queue: str) -> Callable[[], dict[str, Any]]:
    """The next message that flow-hand-over sent to the queue."""

    def receive() -> dict[str, Any]:
        sqs = aws.client("sqs")
        message = wait_for(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"))[0]
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return dict(json.loads(message["Body"]))

    return receive


def hand_over(queue: str, **more: Any) -> dict[str, Any]:
    payload = {"queue": queue, "token": "{% $states.context.Task.Token %}"}
    return task("flow-hand-over", payload, AND_WAIT, **{"TimeoutSeconds": 20, **more})


Received = Callable[[], dict[str, Any]]


def refusal(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**request)
    return str(raised.value.response["Error"]["Code"])


def test_a_token_that_is_answered_gives_the_states_result(
    flows: Flows, queue: str, received: Received
) -> None:
    execution = flows.start(States={"Wait": hand_over(queue)})
    flows.client.send_task_success(taskToken=received()["token"], output='{"loss": 0.1}')
    assert flows.ended(execution)["output"] == {"loss": 0.1}


def test_a_failure_sent_for_a_token_reaches_catch_by_its_error(
    flows: Flows, queue: str, received: Received
) -> None:
    catch = [{"ErrorEquals": ["Stopped"], "Output": "{% $states.errorOutput %}", "Next": "Done"}]
    execution = flows.start(States={"Wait": hand_over(queue, Catch=catch), "Done": {"Type": "Succeed"}})
    flows.client.send_task_failure(taskToken=received()["token"], error="Stopped", cause="by hand")
    assert flows.ended(execution)["output"] == {"Error": "Stopped", "Cause": "by hand"}


def test_a_token_times_out_after_the_seconds_of_an_expression_and_is_no_task_failure(
    flows: Flows, queue: str, received: Received
) -> None:
    """States.TaskFailed matches every error but States.Timeout, which has to be caught by its own name."""
    catch = [
        {"ErrorEquals": ["States.TaskFailed"], "Output": "failed", "Next": "Done"},
        {"ErrorEquals": ["States.Timeout"], "Output": "timed out", "Next": "Done"},
    ]
    waiting = hand_over(queue, TimeoutSeconds="{% $states.input.s %}", Catch=catch)
    execution = flows.start({"s": 1}, States={"Wait": waiting, "Done": {"Type": "Succeed"}})
    token = received()["token"]
    assert flows.ended(execution)["output"] == "timed out"
    assert refusal(flows.client.send_task_success, taskToken=token, output="{}") == "TaskTimedOut"


def test_a_failing_function_fails_the_task_that_waits_for_a_token(flows: Flows) -> None:
    ended = flows.run(States={"Wait": task("flow-fail", {"t": "{% $states.context.Task.Token %}"}, AND_WAIT)})
    assert (ended["status"], ended["error"]) == ("FAILED", "DatasetError")


def test_each_attempt_has_a_token_of_its_own(flows: Flows, queue: str, received: Received) -> None:
    retry = [{"ErrorEquals": ["Again"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution = flows.start(States={"Wait": hand_over(queue, Retry=retry)})
    first = received()["token"]
    flows.client.send_task_failure(taskToken=first, error="Again", cause="")
    second = received()["token"]
    assert first != second
    assert refusal(flows.client.send_task_success, taskToken=first, output="1") == "TaskTimedOut"
    flows.client.send_task_success(taskToken=second, output="2")
    assert flows.ended(execution)["output"] == 2


def test_a_token_is_answered_once(flows: Flows, queue: str, received: Received) -> None:
    execution = flows.start(States={"Wait": hand_over(queue)})
    token = received()["token"]
    flows.client.send_task_success(taskToken=token, output='"first"')
    assert refusal(flows.client.send_task_success, taskToken=token, output='"second"') == "TaskTimedOut"
    assert flows.ended(execution)["output"] == "first"


def test_what_is_no_token_or_no_json_is_refused_and_the_task_goes_on_waiting(
    flows: Flows, queue: str, received: Received
) -> None:
    execution = flows.start(States={"Wait": hand_over(queue)})
    token = received()["token"]
    assert refusal(flows.client.send_task_success, taskToken="nonsense", output="{}") == "InvalidToken"
    assert refusal(flows.client.send_task_success, taskToken=token, output="{") == "InvalidOutput"
    flows.client.send_task_success(taskToken=token, output="{}")
    assert flows.ended(execution)["status"] == "SUCCEEDED"


def test_a_task_that_takes_longer_than_its_time_limit_times_out(flows: Flows) -> None:
    ended = flows.run(States={"Sleep": task("flow-sleep", {"seconds": 3}, TimeoutSeconds=1)})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")


def test_a_stopped_execution_stays_aborted_and_starts_nothing_more(
    flows: Flows, queue: str, received: Received
) -> None:
    """Neither Retry nor Catch of States.ALL sees the end of the execution."""
    execution = flows.start(
        States={
            "Wait": hand_over(
                queue,
                Retry=[{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 3}],
                Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Tell"}],
            ),
            "Tell": task("flow-hand-over", {"queue": queue, "caught": True}),
        }
    )
    token = received()["token"]
    flows.client.stop_execution(executionArn=execution, error="Superseded", cause="a newer one")
    assert refusal(flows.client.send_task_success, taskToken=token, output="1") == "TaskTimedOut"
    time.sleep(2)
    described = flows.client.describe_execution(executionArn=execution)
    assert (described["status"], described["error"], described["cause"]) == (
        "ABORTED",
        "Superseded",
        "a newer one",
    )
    assert flows.history(execution)[-1] == "ExecutionAborted"
    assert "Messages" not in flows.aws.client("sqs").receive_message(QueueUrl=queue)


def test_the_machines_time_limit_ends_the_execution(flows: Flows, queue: str, received: Received) -> None:
    execution = flows.start(TimeoutSeconds=2, States={"Wait": hand_over(queue)})
    token = received()["token"]
    ended = flows.ended(execution)
    assert ended["status"] == "TIMED_OUT"
    assert flows.history(execution)[-1] == "ExecutionTimedOut"
    assert refusal(flows.client.send_task_success, taskToken=token, output="1") == "TaskTimedOut"


def test_starting_again_under_the_same_name_and_with_the_same_input_starts_nothing(
    flows: Flows, queue: str, received: Received
) -> None:
    """With name and input of a running execution "the call succeeds and returns the same response"."""
    machine = flows.create(States={"Wait": hand_over(queue)})
    start = flows.client.start_execution
    first = start(stateMachineArn=machine, name="run-1", input='{"a": 1}')
    second = start(stateMachineArn=machine, name="run-1", input='{"a": 1}')
    assert (first["executionArn"], first["startDate"]) == (second["executionArn"], second["startDate"])
    other = {"stateMachineArn": machine, "name": "run-1", "input": '{"a": 2}'}
    assert refusal(start, **other) == "ExecutionAlreadyExists"
    flows.client.send_task_success(taskToken=received()["token"], output="{}")
    flows.ended(first["executionArn"])
    assert refusal(start, **{**other, "input": '{"a": 1}'}) == "ExecutionAlreadyExists"
    assert len(flows.client.list_executions(stateMachineArn=machine)["executions"]) == 1


def test_the_name_of_an_execution_has_at_most_80_characters(flows: Flows) -> None:
    machine = flows.create(States={"Done": {"Type": "Succeed"}})
    start = flows.client.start_execution
    assert refusal(start, stateMachineArn=machine, name="x" * 81, input="{}") == "InvalidName"
    start(stateMachineArn=machine, name="x" * 80, input="{}")


@pytest.mark.parametrize(
    ("states", "limit", "status"),
    [
        ({"Done": {"Type": "Succeed"}}, 60, "SUCCEEDED"),
        ({"No": {"Type": "Fail", "Error": "E", "Cause": "c"}}, 60, "FAILED"),
        ({"Wait": {"Type": "Wait", "Seconds": 3}}, 1, "TIMED_OUT"),
    ],
)
def test_every_change_of_status_is_an_event_and_a_metric(
    flows: Flows, queue: str, unique: str, states: dict[str, Any], limit: int, status: str
) -> None:
    aws = flows.aws
    sqs, events = aws.client("sqs"), aws.client("events")
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    machine = flows.create(TimeoutSeconds=limit, States=states)
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [machine], "status": [status]}}
    events.put_rule(Name=unique, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=unique, Targets=[{"Id": "1", "Arn": queue_arn}])
    send = {**allow("sqs:SendMessage", queue_arn), "Principal": {"Service": "events.amazonaws.com"}}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy_document(send)})
    execution = flows.client.start_execution(stateMachineArn=machine, name="one", input='{"k": 1}')[
        "executionArn"
    ]
    assert flows.ended(execution)["status"] == status
    body = wait_for(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"))[0]["Body"]
    event = json.loads(body)
    assert event["detail-type"] == "Step Functions Execution Status Change"
    assert event["resources"] == [execution]
    assert (event["detail"]["name"], event["detail"]["input"]) == ("one", '{"k": 1}')
    metric = {
        "SUCCEEDED": "ExecutionsSucceeded",
        "FAILED": "ExecutionsFailed",
        "TIMED_OUT": "ExecutionsTimedOut",
    }[status]
    dimensions = [{"Name": "StateMachineArn", "Value": machine}]
    found = wait_for(  # it is counted after the event was emitted
        lambda: aws.client("cloudwatch").list_metrics(
            Namespace="AWS/States", MetricName=metric, Dimensions=dimensions
        )["Metrics"]
    )
    assert len(found) == 1


def test_sending_an_answer_is_authorized_on_the_state_machine_that_issued_the_token(
    flows: Flows, queue: str, received: Received, unique: str
) -> None:
    """The service authorization reference lists the resource type stateMachine for SendTask*."""
    aws = flows.aws
    machine = flows.create(States={"Wait": hand_over(queue)})
    code = (
        "import boto3\n\n\ndef handler(event, context):\n    client = boto3.client('stepfunctions')\n"
        "    client.send_task_success(taskToken=event['token'], output='\"answered\"')\n"
    )
    execution = flows.client.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
    token = json.dumps({"token": received()["token"]})
    for name, resource in ((f"{unique}-o", f"{machine}-other"), (unique, machine)):
        role = aws.create_role(name, "lambda.amazonaws.com", allow("states:SendTaskSuccess", resource))
        aws.create_function(name, code, role)
    denied = aws.client("lambda").invoke(FunctionName=f"{unique}-o", Payload=token)
    assert "AccessDenied" in json.loads(denied["Payload"].read())["errorMessage"]
    assert "FunctionError" not in aws.client("lambda").invoke(FunctionName=unique, Payload=token)
    assert flows.ended(execution)["output"] == "answered"
