"""One CodeBuild build: clone, phases in one bash process, logs, events, with the project's role."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from ministack.core.responses import get_account_id, get_region

from local.embedded_aws.build_reports import ReportError, upload
from local.embedded_aws.build_tools import write_tools
from local.embedded_aws.buildspec import (
    MARK,
    PHASES,
    Buildspec,
    BuildspecError,
    read_buildspec,
    shell_program,
)
from local.embedded_aws.children import Child
from local.embedded_aws.codecommit import repository_arn, repository_path
from local.embedded_aws.iam import role_denial
from local.embedded_aws.log_streams import create_log_stream
from local.embedded_aws.registration import emit_event, log
from local.embedded_aws.role_clients import RoleClients, role_credentials
from local.embedded_aws.settings import settings

CONSOLE = "https://console.aws.amazon.com/cloudwatch/home"
DETAIL_TYPE = "CodeBuild Build State Change"
TICK_SECONDS = 0.1
FLUSH_SECONDS = 1.0
INHERITED = ("LANG", "LC_ALL", "TMPDIR", "TZ", "PATH")


class PhaseError(Exception):
    """A phase of the service itself failed; the message is the phase's context."""


class BuildRun:
    """One build on its thread. `build` is the record that BatchGetBuilds answers; it is changed in place."""

    def __init__(self, build: dict[str, Any], project: Mapping[str, Any]) -> None:
        self._build, self._project = build, project
        self._folder = settings().builds / build["id"].replace(":", "-")
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._role = str(project["serviceRole"])
        self._logs: Any = None
        log_path = settings().home / "logs/builds" / f"{build['id'].replace(':', '-')}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._file = log_path.open("w", encoding="utf-8", buffering=1)
        build.pop("endTime", None)
        build.update(buildStatus="IN_PROGRESS", buildComplete=False, startTime=time.time(), phases=[])
        build.update(serviceRole=self._role, exportedEnvironmentVariables=[])
        self._begin("SUBMITTED")
        self._end("SUCCEEDED")
        self._begin("QUEUED")

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        self._end("SUCCEEDED")
        self._emit()
        status = "FAULT"
        try:
            status = self._phases()
        except PhaseError as error:
            self._end("FAILED", str(error))
            status = "FAILED"
        except Exception as error:  # a fault of the emulator ends the build, as CodeBuild's own would
            log.exception("build %s", self._build["id"])
            self._end("FAULT", str(error))
        finally:
            self._finish(status)

    def _phases(self) -> str:
        self._begin("PROVISIONING")
        self._open_log()
        self._end("SUCCEEDED")
        self._begin("DOWNLOAD_SOURCE")
        source = self._folder / "src"
        self._build["resolvedSourceVersion"] = self._clone(source)
        try:
            spec = self._read_buildspec(source)
        except BuildspecError as error:
            raise PhaseError(str(error)) from error
        self._end("SUCCEEDED")
        status = self._upload_reports(spec, source, self._execute(spec, source))
        self._begin("FINALIZING")
        self._end("SUCCEEDED")
        return status

    def _open_log(self) -> None:
        """The role must be able to write its log; without that CodeBuild ends the build before it began."""
        self._logs = RoleClients(self._role, "AWSCodeBuild").client("logs")
        group, stream = self._build["logs"]["groupName"], self._build["logs"]["streamName"]
        try:
            create_log_stream(self._logs, group, stream)
        except ClientError as error:
            self._logs = None
            raise PhaseError(
                f"ACCESS_DENIED: Service role {self._role} does not allow AWS CodeBuild to create "
                f"Amazon CloudWatch Logs log streams for build {self._build['arn']}. Error message: {error}"
            ) from error

    def _clone(self, folder: Path) -> str:
        """Check the source version out; the commit."""
        source = self._project.get("source") or {}
        if source.get("type") != "CODECOMMIT":
            raise PhaseError(f"CLIENT_ERROR: source type {source.get('type')} is not emulated")
        name = str(source["location"]).rpartition("/")[2]
        denial = role_denial(
            self._role, "codecommit:GitPull", repository_arn(name), assumed_by="codebuild.amazonaws.com"
        )
        if denial:
            raise PhaseError(
                f"CLIENT_ERROR: authorization failed for primary source and source version: {denial}"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        version = self._build.get("sourceVersion") or "refs/heads/main"
        for step, *arguments in (
            ["clone", "--quiet", "--no-checkout", str(repository_path(name)), str(folder)],
            # Every branch by its own name, so that a source version may be one.
            ["fetch", "--quiet", "--update-head-ok", "origin", "+refs/heads/*:refs/heads/*"],
            ["checkout", "--quiet", "--detach", version],
        ):
            at = folder.parent if step == "clone" else folder
            done = subprocess.run(["git", "-C", str(at), step, *arguments], capture_output=True, text=True)
            if done.returncode:
                raise PhaseError(
                    f"CLIENT_ERROR: git {step} failed for primary source and source version {version}: "
                    f"{done.stderr.strip()}"
                )
        head = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        return head.stdout.strip()

    def _read_buildspec(self, folder: Path) -> Buildspec:
        given = str((self._project.get("source") or {}).get("buildspec") or "")
        if "\n" in given:
            return read_buildspec(given)
        path = folder / (given or "buildspec.yml")
        if not path.is_file():
            raise BuildspecError(f"YAML_FILE_ERROR: stat {path.name}: no such file or directory")
        return read_buildspec(path.read_text(encoding="utf-8"))

    def _execute(self, spec: Buildspec, source: Path) -> str:
        variables = self._folder / "exported"
        child = Child(
            ["bash", "-c", shell_program(spec, str(variables))],
            self._environment(spec, source),
            source,
            self._line,
        )
        deadline = time.monotonic() + 60 * int(self._project.get("timeoutInMinutes") or 60)
        flushed, status = time.monotonic(), "SUCCEEDED"
        while (code := child.wait(TICK_SECONDS)) is None:
            now = time.monotonic()
            if status == "SUCCEEDED" and (self._stop.is_set() or now > deadline):
                status = "STOPPED" if self._stop.is_set() else "TIMED_OUT"
                child.kill()
            if now - flushed > FLUSH_SECONDS:
                self._flush()
                flushed = now
        if status != "SUCCEEDED" or "endTime" not in self._build["phases"][-1]:
            self._end(status if status != "SUCCEEDED" else "FAILED")
        if variables.is_file():
            pairs = [item.partition("=") for item in variables.read_text().split("\0") if item]
            self._build["exportedEnvironmentVariables"] = [
                {"name": name, "value": value} for name, _, value in pairs
            ]
        return status if status != "SUCCEEDED" or code == 0 else "FAILED"

    def _upload_reports(self, spec: Buildspec, source: Path, status: str) -> str:
        """The build's status after it; a build that was stopped has no reports."""
        self._begin("UPLOAD_ARTIFACTS")
        try:
            if status in ("SUCCEEDED", "FAILED"):
                self._build["reportArns"] = upload(spec.reports, source, self._build, self._role)
        except ReportError as error:
            self._end("FAILED", f"CLIENT_ERROR: {error}")
            return "FAILED"
        self._end("SUCCEEDED")
        return status

    def _environment(self, spec: Buildspec, source: Path) -> dict[str, str]:
        tools = write_tools(self._folder / "bin", os.environ.get("PATH", os.defpath), os.environ)
        project = self._project.get("environment") or {}
        given = {item["name"]: str(item["value"]) for item in project.get("environmentVariables") or []}
        home = self._folder / "home"
        home.mkdir()
        environment = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            **spec.variables,
            **given,
            **role_credentials(self._role, "AWSCodeBuild"),
            "HOME": str(home),
            "AWS_REGION": get_region(),
            "AWS_DEFAULT_REGION": get_region(),
            "AWS_ACCOUNT_ID": get_account_id(),
            "AWS_ENDPOINT_URL": settings().endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CODEBUILD_BUILD_ARN": self._build["arn"],
            "CODEBUILD_BUILD_ID": self._build["id"],
            "CODEBUILD_BUILD_NUMBER": str(self._build["buildNumber"]),
            "CODEBUILD_BUILD_IMAGE": str(project.get("image", "")),
            "CODEBUILD_INITIATOR": str(self._build["initiator"]),
            "CODEBUILD_RESOLVED_SOURCE_VERSION": self._build["resolvedSourceVersion"],
            "CODEBUILD_SOURCE_VERSION": str(self._build.get("sourceVersion", "")),
            "CODEBUILD_SOURCE_REPO_URL": str((self._project.get("source") or {}).get("location", "")),
            "CODEBUILD_SRC_DIR": str(source),
            "CODEBUILD_START_TIME": str(int(self._build["startTime"] * 1000)),
            "CODEBUILD_PROJECT_ARN": str(self._project["arn"]),
        }
        environment["PATH"] = os.pathsep.join([str(tools), environment.get("PATH", os.defpath)])
        return environment

    # The record, the log and the events

    def _line(self, line: str) -> None:
        if line.startswith(MARK):
            name, state, *detail = line.removeprefix(MARK).strip().split(" ", 3)
            if name in PHASES and state == "start":
                self._begin(name)
            elif name in PHASES:
                code, command = (*detail, "", "")[:2]
                reason = f"Error while executing command: {command}. Reason: exit status {code}"
                context = f"COMMAND_EXECUTION_ERROR: {reason}"
                self._end(state, context if state == "FAILED" else "")
            return
        with self._lock:
            self._file.write(line + "\n")
            self._lines.append({"timestamp": int(time.time() * 1000), "message": line or " "})

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines and self._logs:
            try:
                self._logs.put_log_events(
                    logGroupName=self._build["logs"]["groupName"],
                    logStreamName=self._build["logs"]["streamName"],
                    logEvents=lines,
                )
            except ClientError as error:
                log.warning("log lines of %s were not stored: %s", self._build["id"], error)

    def _begin(self, name: str) -> None:
        self._build["phases"].append({"phaseType": name, "startTime": time.time()})
        self._build["currentPhase"] = name

    def _end(self, status: str, context: str = "") -> None:
        phase = self._build["phases"][-1]
        phase.update(phaseStatus=status, endTime=time.time())
        phase["durationInSeconds"] = int(phase["endTime"] - phase["startTime"])
        if context:
            phase["contexts"] = [
                {"statusCode": context.partition(":")[0], "message": context.partition(": ")[2]}
            ]
            self._line(f"[Container] Phase context status code: {context}")

    def _finish(self, status: str) -> None:
        self._flush()
        self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._begin("COMPLETED")
        self._build.update(buildStatus=status, buildComplete=True, endTime=time.time())
        self._emit()

    def _emit(self) -> None:
        emit_event(
            "aws.codebuild", DETAIL_TYPE, event_detail(self._build, self._project), [self._build["arn"]]
        )


def event_detail(build: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of a state-change event. Times are written as AWS does: Sep 1, 2017 4:12:29 PM."""
    source, environment = project.get("source") or {}, project.get("environment") or {}
    kebab = {
        "computeType": "compute-type",
        "privilegedMode": "privileged-mode",
        "image": "image",
        "type": "type",
    }
    group, stream = build["logs"]["groupName"], build["logs"]["streamName"]
    return {
        "build-status": build["buildStatus"],
        "project-name": build["projectName"],
        "build-id": build["arn"],
        "additional-information": {
            "artifact": {"location": ""},
            "environment": {
                **{name: environment[member] for member, name in kebab.items() if member in environment},
                "environment-variables": environment.get("environmentVariables") or [],
            },
            "timeout-in-minutes": int(project.get("timeoutInMinutes") or 60),
            "build-complete": build["buildComplete"],
            "initiator": build["initiator"],
            "build-start-time": _written(build["startTime"]),
            "source": {name: source[name] for name in ("location", "type", "buildspec") if name in source},
            "source-version": build.get("sourceVersion", ""),
            "logs": {
                "group-name": group,
                "stream-name": stream,
                "deep-link": f"{CONSOLE}#logEvent:group={group};stream={stream}",
            },
            "phases": [_phase_detail(phase) for phase in build["phases"]],
        },
        "current-phase": build["currentPhase"],
        "current-phase-context": "[]",
        "version": "1",
    }


def _phase_detail(phase: Mapping[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = {"phase-type": phase["phaseType"], "start-time": _written(phase["startTime"])}
    if "endTime" in phase:
        contexts = [f"{item['statusCode']}: {item['message']}" for item in phase.get("contexts", [])]
        detail.update(
            {
                "phase-context": contexts or [": "],
                "end-time": _written(phase["endTime"]),
                "duration-in-seconds": phase["durationInSeconds"],
                "phase-status": phase["phaseStatus"],
            }
        )
    return detail


def _written(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%b} {moment.day}, {moment.year} {moment.hour % 12 or 12}:{moment:%M:%S %p}"
