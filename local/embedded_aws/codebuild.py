"""CodeBuild's API over builds that are executed (build_run.py). Projects stay ministack's."""

import copy
import threading
from collections.abc import Mapping
from typing import Any

from ministack.core.responses import AccountRegionScopedDict
from ministack.services import codebuild
from ministack.services.cloudformation import provisioners

from local.embedded_aws import ecr_layers
from local.embedded_aws.build_reports import batch_get_reports
from local.embedded_aws.build_run import BuildRun
from local.embedded_aws.checked_operation import checked
from local.embedded_aws.patching import replace
from local.embedded_aws.registration import add_operation, in_background
from local.embedded_aws.request_validation import RequestError

Request = Mapping[str, Any]

OVERRIDES = {
    "buildspecOverride": "buildspec",
    "sourceLocationOverride": "location",
    "sourceTypeOverride": "type",
}
NOT_EMULATED = (
    "secondarySourcesOverride",
    "artifactsOverride",
    "cacheOverride",
    "fleetOverride",
    "registryCredentialOverride",
)

_runs: dict[str, BuildRun] = {}
_tokens = AccountRegionScopedDict()
_numbering = threading.Lock()


def install() -> None:
    ecr_layers.install()  # what builds push goes through ECR's layer API
    for name, operation, new in (
        ("_start_build", "StartBuild", start_build),
        ("_stop_build", "StopBuild", stop_build),
        ("_list_builds_for_project", "ListBuildsForProject", list_builds_for_project),
    ):
        replace(codebuild, name, checked("codebuild", operation, new, refused_as="InvalidInputException"))
    add_operation("codebuild", "BatchGetReports", checked("codebuild", "BatchGetReports", batch_get_reports))
    handlers = provisioners._RESOURCE_HANDLERS["AWS::CodeBuild::Project"]
    create, update = handlers["create"], handlers["update"]
    handlers["create"] = lambda *given: with_log_group(create(*given), given[1])
    handlers["update"] = lambda *given: with_log_group(update(*given), given[2])


def with_log_group(
    provisioned: tuple[str, dict[str, Any]], properties: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Keep LogsConfig's group, which ministack forgets."""
    group = ((properties.get("LogsConfig") or {}).get("CloudWatchLogs") or {}).get("GroupName")
    codebuild._projects[provisioned[0]]["embedded_log_group"] = group
    return provisioned


def start_build(request: Request) -> dict[str, Any]:
    """Start a build; the same idempotencyToken within the emulator's life gives the same build."""
    project = _project(request["projectName"])
    for name in NOT_EMULATED:
        if name in request:
            raise RequestError("InvalidInputException", f"{name} is not emulated")
    token = (project["name"], request.get("idempotencyToken"))
    with _numbering:
        if token[1] and token in _tokens:
            return {"build": copy.deepcopy(codebuild._builds[_tokens[token]])}
        project = copy.deepcopy(project)
        for name, member in OVERRIDES.items():
            if name in request:
                project["source"][member] = request[name]
        project["serviceRole"] = request.get("serviceRoleOverride", project["serviceRole"])
        variables = {item["name"]: item for item in project["environment"].get("environmentVariables") or []}
        variables.update({item["name"]: item for item in request.get("environmentVariablesOverride") or []})
        project["environment"]["environmentVariables"] = list(variables.values())
        project["timeoutInMinutes"] = request.get(
            "timeoutInMinutesOverride", project.get("timeoutInMinutes", 60)
        )
        identifier = codebuild._build_id(project["name"])
        build = codebuild._make_build_record(project, identifier, request.get("sourceVersion"))
        build["logs"]["groupName"] = project.get("embedded_log_group") or build["logs"]["groupName"]
        run = BuildRun(build, project)
        codebuild._builds[identifier], _runs[identifier] = build, run
        if token[1]:
            _tokens[token] = identifier
    in_background(run.run)
    return {"build": copy.deepcopy(build)}


def stop_build(request: Request) -> dict[str, Any]:
    """Kills what the build runs. A build that has ended stays as it is."""
    identifier = request["id"].rpartition("build/")[2]
    if identifier not in codebuild._builds:
        raise RequestError("ResourceNotFoundException", f"Build {request['id']} does not exist")
    _runs[identifier].stop()
    return {"build": copy.deepcopy(codebuild._builds[identifier])}


def list_builds_for_project(request: Request) -> dict[str, Any]:
    name = _project(request["projectName"])["name"]
    builds = [build for build in codebuild._builds.values() if build["projectName"] == name]
    builds.sort(
        key=lambda build: build["buildNumber"], reverse=request.get("sortOrder", "DESCENDING") == "DESCENDING"
    )
    return {"ids": [build["id"] for build in builds[:100]]}


def _project(name_or_arn: str) -> dict[str, Any]:
    name = name_or_arn.rpartition(":project/")[2]
    if name not in codebuild._projects:
        raise RequestError("ResourceNotFoundException", f"Project cannot be found: {name_or_arn}")
    project: dict[str, Any] = codebuild._projects[name]
    return project
