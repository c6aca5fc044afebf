"""Lambda: what a failing handler reports, temporary files, metrics embedded in the log, and a clock that is off."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import cloudwatch, lambda_svc

from local.embedded_aws.patching import replace, replace_in_text
from local.embedded_aws.registration import run_at_shutdown

REPORT = (
    '_real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()})'
    ' + "\\n")'
)
REPORT_WITH_CLASS = (
    '_real_stdout.write(json.dumps({"status": "error", "trace": traceback.format_exc(), "error": json.dumps('
    '{"errorMessage": str(e), "errorType": type(e).__name__,'
    ' "stackTrace": traceback.format_tb(e.__traceback__)})})'
    ' + "\\n")'
)
CODE_FOLDER = '    code_dir = init["code_dir"]\n'
OWN_TEMPORARY_FOLDER = (
    CODE_FOLDER
    + '    os.environ["TMPDIR"] = os.path.join(os.path.dirname(code_dir), "tmp")\n'
    + '    os.makedirs(os.environ["TMPDIR"], exist_ok=True)\n'
)
LOOP = "    while True:\n        line = sys.stdin.readline()\n"
EVENT = '        event = _ms_msg["event"]\n'
# A member of an invocation's event: seconds by which the handler's clock is fast. Lambda's own payload is beside it.
CLOCK = "embedded-aws-clock"
# Before the deadline of the invocation is reckoned, which is by that clock, too.
EVENT_AND_CLOCK = (
    EVENT
    + f"""\
        if clock is not None:
            clock.stop()
            clock = None
        if isinstance(event, dict) and "{CLOCK}" in event:
            import datetime
            import time_machine
            fast = datetime.timedelta(seconds=event["{CLOCK}"])
            event = event["event"]
            clock = time_machine.travel(datetime.datetime.now(datetime.timezone.utc) + fast, tick=True)
            clock.start()
"""
)


def install() -> None:
    replace_in_text(lambda_runtime, "_PYTHON_WORKER_SCRIPT", REPORT, REPORT_WITH_CLASS)
    replace_in_text(lambda_runtime, "_PYTHON_WORKER_SCRIPT", LOOP, "    clock = None\n" + LOOP)
    replace_in_text(lambda_runtime, "_PYTHON_WORKER_SCRIPT", EVENT, EVENT_AND_CLOCK)
    replace_in_text(lambda_runtime, "_PYTHON_WORKER_SCRIPT", CODE_FOLDER, OWN_TEMPORARY_FOLDER)
    execute = replace(
        lambda_svc,
        "_execute_function_warm",
        lambda *invocation: with_exception_class(execute(*invocation), invocation[2]),
    )

    def emit(function: Mapping[str, Any], request_id: str, text: str, *rest: Any, **more: Any) -> Any:
        found = list(embedded_metrics(text or ""))
        for namespace, name, value, unit, dimensions in found:
            cloudwatch.record_metric(namespace, name, value, unit, dimensions)
        if found:
            cloudwatch._evaluate_all_alarms()
        return emit_logs(function, request_id, text, *rest, **more)

    emit_logs = replace(lambda_svc, "_emit_lambda_logs", emit)
    run_at_shutdown(stop_workers)


def stop_workers() -> None:
    """End all workers and start no more, not even for the retry of an invocation that this cuts short."""

    def refuse(worker: object) -> None:
        raise RuntimeError("the embedded AWS is stopping")

    lambda_runtime.Worker._spawn = refuse
    lambda_runtime.reset()


def with_exception_class(result: dict[str, Any], request_id: str) -> dict[str, Any]:
    """The result with the error that Lambda's Python runtime reports: errorType is the bare class name."""
    body = result.get("body")
    if not result.get("error") or not isinstance(body, dict):
        return result
    try:
        reported = json.loads(body["errorMessage"])
        report = {
            "errorMessage": reported["errorMessage"],
            "errorType": reported["errorType"],
            "requestId": request_id,
            "stackTrace": reported["stackTrace"],
        }
    except (KeyError, TypeError, ValueError):
        return result  # the emulator's own: a timeout, a worker that died
    return {**result, "body": report}


def embedded_metrics(text: str) -> Iterator[tuple[str, str, float, str, dict[str, str]]]:
    """Namespace, name, value, unit and dimensions of every metric in a log (embedded metric format)."""
    for line in text.splitlines():
        if '"_aws"' not in line:
            continue
        try:
            entry = json.loads(line[line.index("{") :])
        except ValueError:
            continue
        for directive in entry.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in directive.get("Dimensions") or [[]]:
                dimensions = {name: str(entry[name]) for name in names if name in entry}
                for metric in directive.get("Metrics", []):
                    values = entry.get(metric["Name"], [])
                    for value in values if isinstance(values, list) else [values]:
                        unit = metric.get("Unit", "None")
                        yield directive["Namespace"], metric["Name"], float(value), unit, dimensions
