"""Functions run as Lambda documents, in what the application relies on."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.embedded_aws.flows import Flows, task
from tests.embedded_aws.running import RunningEmbeddedAws, allow, wait_for


@pytest.fixture
def invoke(aws: RunningEmbeddedAws, flows: Flows, unique: str) -> Any:
    """Create a function of the code and invoke it: FunctionError and the payload."""

    def call(
        code: str, event: Any = None, role: str = flows.function_role, **more: Any
    ) -> tuple[str | None, Any]:
        aws.create_function(unique, code, role, **more)
        answer = aws.client("lambda").invoke(FunctionName=unique, Payload=json.dumps(event or {}))
        return answer.get("FunctionError"), json.loads(answer["Payload"].read())

    return call


def test_the_class_of_an_exception_is_the_error_type(invoke: Any) -> None:
    error, report = invoke(
        "class DatasetError(Exception): ...\ndef handler(e, c):\n    raise DatasetError('no images')\n"
    )
    assert error == "Unhandled"
    assert (report["errorType"], report["errorMessage"]) == ("DatasetError", "no images")
    assert any("raise DatasetError" in line for line in report["stackTrace"])


def test_the_class_of_an_exception_reaches_the_catch_of_a_state_machine(flows: Flows) -> None:
    catch = [{"ErrorEquals": ["DatasetError"], "Output": "{% $states.errorOutput.Cause %}", "Next": "Done"}]
    cause = flows.output(Fail=task("flow-fail", Catch=catch), Done={"Type": "Succeed"})
    assert json.loads(cause)["errorMessage"] == "no images"


def test_a_function_that_overruns_its_timeout_is_stopped(invoke: Any) -> None:
    error, report = invoke("import time\ndef handler(e, c):\n    time.sleep(9)\n", Timeout=1)
    assert error == "Unhandled"
    assert "timed out after 1" in report["errorMessage"]


def test_temporary_files_are_the_functions_own(aws: RunningEmbeddedAws, invoke: Any) -> None:
    _, folder = invoke("import tempfile\ndef handler(e, c):\n    return tempfile.mkdtemp()\n")
    assert folder.startswith(str(aws.home / "tmp" / "ministack-lambda-"))


def test_what_the_artifact_brings_takes_precedence_over_the_runtimes_packages(invoke: Any) -> None:
    code = (
        "import boto3, sys, os\ndef handler(e, c):\n"
        "    return [os.path.dirname(__file__), sys.path[0], boto3.__file__]\n"
    )
    _, (artifact, first, runtime) = invoke(code)
    assert artifact == first
    assert not runtime.startswith(artifact)


def test_embedded_metrics_in_the_log_become_cloudwatch_metrics(
    aws: RunningEmbeddedAws, invoke: Any, unique: str
) -> None:
    line = {
        "_aws": {
            "Timestamp": 1,
            "CloudWatchMetrics": [
                {
                    "Namespace": unique,
                    "Dimensions": [["service"]],
                    "Metrics": [{"Name": "Runs", "Unit": "Count"}],
                }
            ],
        },
        "service": "fine-tuning",
        "Runs": [2, 3],
    }
    invoke(f"import json\ndef handler(e, c):\n    print(json.dumps({line!r}))\n")
    [metric] = wait_for(lambda: aws.client("cloudwatch").list_metrics(Namespace=unique)["Metrics"])
    assert metric["MetricName"] == "Runs"
    assert metric["Dimensions"] == [{"Name": "service", "Value": "fine-tuning"}]


def test_a_function_may_do_what_its_role_allows_and_nothing_else(
    aws: RunningEmbeddedAws, invoke: Any, unique: str
) -> None:
    role = aws.create_role(unique, "lambda.amazonaws.com", allow("s3:ListAllMyBuckets"))
    code = (
        "import boto3\ndef handler(e, c):\n    boto3.client('s3').list_buckets()\n"
        "    boto3.client('dynamodb').list_tables()\n"
    )
    error, report = invoke(code, role=role)
    assert error == "Unhandled"
    assert "not authorized to perform: dynamodb:ListTables" in report["errorMessage"]


def test_tracing_is_off_and_the_developers_own_paths_are_not_seen(invoke: Any) -> None:
    code = "import os\ndef handler(e, c):\n    return [os.environ.get(n) for n in e]\n"
    names = ["AWS_XRAY_SDK_ENABLED", "POWERTOOLS_TRACE_DISABLED", "PYTHONPATH", "AWS_REGION"]
    assert invoke(code, names)[1] == ["false", "true", None, "us-east-1"]


def test_functions_with_one_artifact_share_its_code_and_its_bytecode(
    aws: RunningEmbeddedAws, flows: Flows, unique: str
) -> None:
    """Each still runs in an environment of its own."""
    code = (
        "import os, sys\nfrom pathlib import Path\n\n\ndef handler(event, context):\n"
        "    here = Path(__file__)\n    cached = __import__('app').__cached__\n"
        "    return [str(here), str(here.resolve()), os.getpid(), cached]\n"
    )
    answers = []
    for name in (f"{unique}-a", f"{unique}-b"):
        aws.create_function(name, code, flows.function_role)
        answers.append(json.loads(aws.client("lambda").invoke(FunctionName=name)["Payload"].read()))
    (first, first_real, first_process, cached), (second, second_real, second_process, _) = answers
    assert first != second
    assert first_process != second_process
    assert first_real == second_real
    assert Path(cached).exists()
