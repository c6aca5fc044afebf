"""State machines for the tests of Step Functions."""

import json
from itertools import count
from typing import Any

from tests.embedded_aws.running import RunningEmbeddedAws, allow, wait_for

INVOKE = "arn:aws:states:::lambda:invoke"
AND_WAIT = f"{INVOKE}.waitForTaskToken"

FUNCTIONS = {
    "flow-echo": "def handler(event, context):\n    return event\n",
    "flow-fail": (
        "class DatasetError(Exception):\n    pass\n\n\n"
        "def handler(event, context):\n    print('called')\n    raise DatasetError('no images')\n"
    ),
    "flow-sleep": "import time\n\n\ndef handler(event, context):\n    time.sleep(event['seconds'])\n",
    "flow-clock": (
        "import time\nfrom datetime import UTC, datetime\n\n\ndef handler(event, context):\n"
        "    return {**event, 'time': time.time(), 'now': datetime.now(UTC).timestamp(),"
        " 'left': context.get_remaining_time_in_millis()}\n"
    ),
    "flow-hand-over": (
        "import boto3, json\n\n\ndef handler(event, context):\n"
        "    boto3.client('sqs').send_message(QueueUrl=event['queue'], MessageBody=json.dumps(event))\n"
    ),
}


class Flows:
    """Runs JSONata state machines whose role may do anything unless another is given."""

    def __init__(self, aws: RunningEmbeddedAws) -> None:
        self.aws = aws
        self.client = aws.client("stepfunctions")
        self.role = aws.create_role("flows", "states.amazonaws.com", allow("*"))
        self.function_role = aws.create_role("flow-functions", "lambda.amazonaws.com", allow("*"))
        self.functions = {
            name: aws.create_function(name, code, self.function_role) for name, code in FUNCTIONS.items()
        }
        self._numbers = count(1)

    def create(self, *, role: str | None = None, **definition: Any) -> str:
        """The ARN of a new state machine; it starts at the first state, and each ends unless it says more."""
        states = {
            name: {
                **({} if {"Next", "End"} & state.keys() or state["Type"] in FINAL else {"End": True}),
                **state,
            }
            for name, state in definition.pop("States").items()
        }
        machine = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **definition}
        return str(
            self.client.create_state_machine(
                name=f"flow-{next(self._numbers)}", definition=json.dumps(machine), roleArn=role or self.role
            )["stateMachineArn"]
        )

    def start(self, data: Any = None, **machine: Any) -> str:
        arn = self.create(**machine)
        started = self.client.start_execution(
            stateMachineArn=arn, input=json.dumps({} if data is None else data)
        )
        return str(started["executionArn"])

    def ended(self, execution: str, seconds: float = 60.0) -> dict[str, Any]:
        """The execution once it is over, with its output parsed."""

        def over() -> Any:
            described = self.client.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        described = wait_for(over, seconds)
        if described["status"] == "SUCCEEDED":
            described["output"] = json.loads(described["output"])
        return dict(described)

    def run(self, data: Any = None, **machine: Any) -> dict[str, Any]:
        return self.ended(self.start(data, **machine))

    def output(self, data: Any = None, **states: Any) -> Any:
        """The output of an execution of these states, which must succeed."""
        ended = self.run(data, States=states)
        assert ended["status"] == "SUCCEEDED", (ended.get("error"), ended.get("cause"))
        return ended["output"]

    def history(self, execution: str) -> list[str]:
        """The types of the execution's events."""
        events = self.client.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        return [event["type"] for event in events]


FINAL = ("Choice", "Succeed", "Fail")


def task(function: str, payload: Any = None, resource: str = INVOKE, **more: Any) -> dict[str, Any]:
    """A Task that invokes one of FUNCTIONS; it gives the payload that the function returned."""
    state = {
        "Type": "Task",
        "Resource": resource,
        "Arguments": {"FunctionName": function, "Payload": payload or {}},
    }
    return {**state, **({"Output": "{% $states.result.Payload %}"} if resource == INVOKE else {}), **more}
