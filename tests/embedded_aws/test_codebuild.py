"""CodeBuild: builds that run their buildspec, with the project's role, and tell how they went."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.embedded_aws.buildspec import BuildspecError, read_buildspec
from tests.embedded_aws.running import ACCOUNT, REGION, REPOSITORY, RunningEmbeddedAws, allow, wait_for
from tests.embedded_aws.test_codecommit import Source
from tests.embedded_aws.training import Events

DETAIL_TYPE = "CodeBuild Build State Change"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


class Project:
    """A project over a repository, an image repository and a role, all of one name."""

    def __init__(self, aws: RunningEmbeddedAws, name: str, folder: Path) -> None:
        self.aws, self.name = aws, name
        self.codebuild, self.ecr = aws.client("codebuild"), aws.client("ecr")
        self.source = Source(aws, name, folder)
        self.source.create()
        self.ecr.create_repository(
            repositoryName=name,
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "latest"}],
        )
        self.role = aws.create_role(f"build-{name}", "codebuild.amazonaws.com", *self.permissions())

    def permissions(self, without: str = "") -> list[dict[str, Any]]:
        repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{self.name}"
        source = f"arn:aws:codecommit:{REGION}:{ACCOUNT}:{self.name}"
        reports = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:report-group"
        statements = {
            "codecommit:GitPull": source,
            "codecommit:GetBranch": source,
            "ecr:GetAuthorizationToken": "*",
            "ecr:BatchCheckLayerAvailability": repository,
            "ecr:BatchGetImage": repository,
            "ecr:GetDownloadUrlForLayer": repository,
            "ecr:DescribeImages": repository,
            "ecr:InitiateLayerUpload": repository,
            "ecr:UploadLayerPart": repository,
            "ecr:CompleteLayerUpload": repository,
            "ecr:PutImage": repository,
            "logs:CreateLogGroup": "*",
            "logs:CreateLogStream": "*",
            "logs:PutLogEvents": "*",
            "codebuild:CreateReportGroup": f"{reports}/{self.name}-*",
            "codebuild:CreateReport": f"{reports}/{self.name}-*",
            "codebuild:UpdateReport": f"{reports}/{self.name}-*",
            "codebuild:BatchPutTestCases": f"{reports}/{self.name}-*",
        }
        return [allow(action, on) for action, on in statements.items() if action != without]

    def create(self, role: str | None = None, **variables: str) -> None:
        self.codebuild.create_project(
            name=self.name,
            source={
                "type": "CODECOMMIT",
                "location": f"https://git-codecommit.{REGION}.amazonaws.com/v1/repos/{self.name}",
            },
            artifacts={"type": "NO_ARTIFACTS"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/standard:8.0",
                "computeType": "BUILD_GENERAL1_LARGE",
                "environmentVariables": [{"name": name, "value": value} for name, value in variables.items()],
            },
            serviceRole=role or self.role,
        )

    def push(self, buildspec: str, **files: str) -> str:
        commit = self.source.commit(buildspec__yml=buildspec, **files)
        self.source.push()
        return commit

    def start(self, **more: Any) -> str:
        return str(self.codebuild.start_build(projectName=self.name, **more)["build"]["id"])

    def build(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.codebuild.batch_get_builds(ids=[identifier])["builds"][0]
        return found

    def ended(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_for(
            lambda: (build := self.build(identifier))["buildStatus"] != "IN_PROGRESS" and build
        )
        return found

    def reports(self, build: dict[str, Any]) -> dict[str, Any]:
        """Name of each report's group → status and what is not 0 of its counts."""
        found = self.codebuild.batch_get_reports(reportArns=build["reportArns"])["reports"]
        return {
            each["name"]: (
                each["status"],
                {name: count for name, count in each["testSummary"]["statusCounts"].items() if count},
            )
            for each in found
        }

    def log(self, identifier: str) -> list[str]:
        logs = self.build(identifier)["logs"]
        events = self.aws.client("logs").get_log_events(
            logGroupName=logs["groupName"], logStreamName=logs["streamName"], startFromHead=True
        )
        return [event["message"] for event in events["events"]]


@pytest.fixture
def project(aws: RunningEmbeddedAws, unique: str, tmp_path: Path) -> Project:
    return Project(aws, unique, tmp_path / "source")


def commands(*build: str) -> str:
    """A buildspec whose build phase has these commands."""
    return json.dumps({"version": 0.2, "phases": {"build": {"commands": build}}})


def phases(build: dict[str, Any]) -> dict[str, str]:
    return {phase["phaseType"]: phase.get("phaseStatus", "") for phase in build["phases"]}


def test_all_phases_share_one_shell(project: Project) -> None:
    project.create(GREETING="from the project", SHADOWED="project")
    project.push(
        """
version: 0.2
env:
  variables: {SHADOWED: buildspec, FROM_SPEC: 1}
  exported-variables: [RESULT]
phases:
  install: {commands: ['A=installed', 'cd /']}
  build:
    commands:
      - echo "$A in $PWD, $GREETING, $SHADOWED, $FROM_SPEC, $OVERRIDDEN"
      - |
        RESULT="two
        lines"
  post_build: {commands: ['echo "post $CODEBUILD_BUILD_SUCCEEDING"']}
"""
    )

    identifier = project.start(environmentVariablesOverride=[{"name": "OVERRIDDEN", "value": "overridden"}])
    build = project.ended(identifier)

    assert build["buildStatus"] == "SUCCEEDED", project.log(identifier)
    log = project.log(identifier)
    assert "installed in /, from the project, project, 1, overridden" in log
    assert "post 1" in log
    assert build["exportedEnvironmentVariables"] == [{"name": "RESULT", "value": "two\nlines"}]
    assert list(phases(build)) == [
        "SUBMITTED",
        "QUEUED",
        "PROVISIONING",
        "DOWNLOAD_SOURCE",
        "INSTALL",
        "PRE_BUILD",
        "BUILD",
        "POST_BUILD",
        "UPLOAD_ARTIFACTS",
        "FINALIZING",
        "COMPLETED",
    ]
    assert not list((project.aws.home / "builds").glob(f"{project.name}*"))


@pytest.mark.parametrize("command", ["false", "exit 7", "sh -c 'exit 7'"])
def test_post_build_runs_after_a_failed_build(project: Project, command: str) -> None:
    project.create()
    project.push(
        f"""
version: 0.2
phases:
  build: {{commands: ['A=kept', "{command}", 'echo never']}}
  post_build: {{commands: ['echo "post $CODEBUILD_BUILD_SUCCEEDING $A"']}}
"""
    )

    identifier = project.start()
    build = project.ended(identifier)

    assert build["buildStatus"] == "FAILED"
    assert (phases(build)["BUILD"], phases(build)["POST_BUILD"]) == ("FAILED", "SUCCEEDED")
    assert "post 0 kept" in project.log(identifier)
    assert "never" not in project.log(identifier)
    failed = next(phase for phase in build["phases"] if phase["phaseType"] == "BUILD")
    assert failed["contexts"][0]["statusCode"] == "COMMAND_EXECUTION_ERROR"
    assert failed["contexts"][0]["message"].startswith(f"Error while executing command: {command}.")


@pytest.mark.parametrize("phase", ["install", "pre_build"])
def test_nothing_runs_after_a_failed_preparation(project: Project, phase: str) -> None:
    project.create()
    project.push(
        f"""
version: 0.2
phases:
  {phase}: {{commands: ['false'], finally: ['echo finally']}}
  build: {{commands: ['echo built']}}
  post_build: {{commands: ['echo post']}}
"""
    )

    identifier = project.start()

    assert project.ended(identifier)["buildStatus"] == "FAILED"
    assert "finally" in project.log(identifier)
    assert {"built", "post"}.isdisjoint(project.log(identifier))


def test_the_build_is_of_the_commit_that_was_asked_for(project: Project) -> None:
    project.create()
    spec = commands('cat which; echo " $CODEBUILD_RESOLVED_SOURCE_VERSION"')
    first = project.push(spec, which="first")
    second = project.push(spec, which="second")

    old, newest = project.start(sourceVersion=first), project.start()

    assert project.ended(old)["resolvedSourceVersion"] == first
    assert f"first {first}" in project.log(old)
    project.ended(newest)
    assert f"second {second}" in project.log(newest)
    assert project.codebuild.list_builds_for_project(projectName=project.name)["ids"] == [newest, old]


def test_the_same_token_starts_one_build(project: Project) -> None:
    project.create()
    project.push("version: 0.2\nphases: {build: {commands: [':']}}\n")

    first = project.start(idempotencyToken="a")

    assert project.start(idempotencyToken="a") == first
    assert project.start(idempotencyToken="b") != first


def test_a_build_that_is_stopped_is_killed_with_its_children(project: Project, tmp_path: Path) -> None:
    project.create()
    beat = tmp_path / "beat"
    project.push(commands(f"(while :; do date +%N > {beat}; sleep 0.1; done) & wait"))
    identifier = project.start()
    wait_for(beat.exists)

    project.codebuild.stop_build(id=identifier)
    build = project.ended(identifier)

    assert build["buildStatus"] == "STOPPED"
    assert phases(build)["BUILD"] == "STOPPED"
    last = beat.read_text()
    time.sleep(0.4)
    assert beat.read_text() == last


def test_what_is_wrong_before_the_commands_fails_the_build(project: Project) -> None:
    project.create()
    project.source.commit("no buildspec")
    project.source.push()

    missing = project.ended(project.start())
    nowhere = project.ended(project.start(sourceVersion="f" * 40))

    for build in (missing, nowhere):
        assert build["buildStatus"] == "FAILED"
        assert phases(build)["DOWNLOAD_SOURCE"] == "FAILED"
    assert "no such file" in str(missing["phases"])
    assert "git checkout failed" in str(nowhere["phases"])
    with pytest.raises(ClientError) as refused:
        project.codebuild.start_build(projectName="ghost")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "text",
    ["version: 0.1\nphases: {build: {}}", "version: 0.2", "version: 0.2\nphases: {biuld: {}}", "a: [", "- a"],
)
def test_a_buildspec_that_codebuild_refuses_is_refused(text: str) -> None:
    with pytest.raises(BuildspecError, match="YAML_FILE_ERROR"):
        read_buildspec(text)


@pytest.mark.parametrize(
    "action",
    [
        "codecommit:GitPull",
        "logs:CreateLogStream",
        "ecr:PutImage",
        "ecr:InitiateLayerUpload",
        "codebuild:BatchPutTestCases",
    ],
)
def test_a_permission_that_the_role_lacks_fails_the_build_by_name(project: Project, action: str) -> None:
    role = project.aws.create_role(
        f"less-{project.name}", "codebuild.amazonaws.com", *project.permissions(without=action)
    )
    project.create(role)
    image = f"{REGISTRY}/{project.name}:one"
    reported = action.startswith("codebuild:")
    project.push(
        REPORTS if reported else commands(f"docker build -t {image} .", f"docker push {image}"),
        Dockerfile="FROM scratch\nCOPY Dockerfile /\n",
        junit__xml=JUNIT,
    )

    identifier = project.start()
    build = project.ended(identifier)

    assert build["buildStatus"] == "FAILED"
    told = (project.aws.home / "logs/builds" / f"{identifier.replace(':', '-')}.log").read_text()
    assert f"not authorized to perform: {action}" in told
    assert project.ecr.list_images(repositoryName=project.name)["imageIds"] == []


def test_a_build_tells_its_beginning_and_its_end(project: Project) -> None:
    events = Events(project.aws, project.name, DETAIL_TYPE)
    project.create()
    project.push("version: 0.2\nphases: {build: {commands: ['false']}}\n")

    project.ended(project.start())

    seen = wait_for(
        lambda: (found := events.where(**{"project-name": project.name})) and len(found) > 1 and found
    )
    # Each is delivered by itself, so that either may come first.
    begun, ended = sorted(seen, key=lambda event: str(event["build-status"]), reverse=True)
    assert (begun["build-status"], ended["build-status"]) == ("IN_PROGRESS", "FAILED")
    more = ended["additional-information"]
    assert ended["build-id"].startswith(f"arn:aws:codebuild:{REGION}:{ACCOUNT}:build/{project.name}:")
    assert more["build-complete"] is True
    assert more["logs"]["group-name"] == f"/aws/codebuild/{project.name}"
    failed = next(phase for phase in more["phases"] if phase["phase-type"] == "BUILD")
    assert failed["phase-status"] == "FAILED"
    assert failed["phase-context"][0].startswith(
        "COMMAND_EXECUTION_ERROR: Error while executing command: false"
    )


JUNIT = (
    '<testsuites><testsuite><testcase name="a" time="0.5"/><testcase name="b"><failure/></testcase>'
    '<testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase></testsuite></testsuites>'
)
REPORTS = """
version: 0.2
phases:
  build: {commands: ['mkdir -p out', 'cp *.xml out/ || true']}
reports:
  unit: {base-directory: out, files: ['*.xml'], file-format: JUNITXML}
"""


def test_a_build_reports_its_tests(project: Project) -> None:
    project.create()
    project.push(REPORTS, junit__xml=JUNIT)

    build = project.ended(project.start())

    assert build["buildStatus"] == "SUCCEEDED"
    counts = {"SUCCEEDED": 1, "FAILED": 1, "SKIPPED": 1, "ERROR": 1}
    assert project.reports(build) == {f"{project.name}-unit": ("FAILED", counts)}
    lost = project.codebuild.batch_get_reports(reportArns=[build["reportArns"][0] + "0"])
    assert lost["reportsNotFound"] == [build["reportArns"][0] + "0"]


@pytest.mark.parametrize("junit", ["", "<testsuites"])
def test_a_build_without_the_report_that_it_promises_fails(project: Project, junit: str) -> None:
    project.create()
    project.push(REPORTS, **({"junit__xml": junit} if junit else {}))

    build = project.ended(project.start())

    assert build["buildStatus"] == "FAILED"
    assert (phases(build)["BUILD"], phases(build)["UPLOAD_ARTIFACTS"]) == ("SUCCEEDED", "FAILED")
    assert ("JUnit" if junit else "no matching report paths") in str(build["phases"])


# The project's own buildspec and Dockerfile


class Container:
    """The content of container/ in a repository of its own."""

    def __init__(self, project: Project) -> None:
        self.project = project
        project.create(
            IMAGE_REPOSITORY_URI=f"{REGISTRY}/{project.name}",
            SOURCE_REPOSITORY_NAME=project.name,
            KOHYA_SS_VERSION="v25.2.2",
        )
        shutil.copytree(
            REPOSITORY / "container",
            project.source.folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )

    def push(self, message: str) -> str:
        commit = self.project.source.commit(message)
        self.project.source.push()
        return commit

    def images(self) -> dict[str, str]:
        """Tag → digest."""
        found = self.project.ecr.describe_images(repositoryName=self.project.name)["imageDetails"]
        return {tag: image["imageDigest"] for image in found for tag in image.get("imageTags", [])}


@pytest.fixture
def container(project: Project) -> Container:
    return Container(project)


def test_the_images_own_buildspec_pushes_an_image_of_the_commit(container: Container) -> None:
    commit = container.push("one")

    identifier = container.project.start(sourceVersion=commit)
    build = container.project.ended(identifier)

    log = container.project.log(identifier)
    assert build["buildStatus"] == "SUCCEEDED", log
    assert any(line.startswith("RUN steps were not executed: ") for line in log)
    images = container.images()
    assert set(images) == {f"{commit}-v25.2.2", "latest"}
    exported = {item["name"]: item["value"] for item in build["exportedEnvironmentVariables"]}
    assert exported == {"IMAGE_TAG": f"{commit}-v25.2.2", "IMAGE_DIGEST": images["latest"]}
    not_run = {f"{container.project.name}-image-tests": ("SUCCEEDED", {"SKIPPED": 1})}
    assert container.project.reports(build) == not_run


def test_latest_moves_only_while_the_commit_is_the_tip(container: Container) -> None:
    first = container.push("one")
    second = container.push("two")

    container.project.ended(container.project.start(sourceVersion=second))
    newest = container.images()["latest"]
    late = container.project.start(sourceVersion=first)
    container.project.ended(late)

    images = container.images()
    assert images["latest"] == newest == images[f"{second}-v25.2.2"] != images[f"{first}-v25.2.2"]
    assert any(f"latest stays the image of {second}" in line for line in container.project.log(late))


def test_a_build_that_is_overtaken_leaves_latest_to_the_tips_own_build(container: Container) -> None:
    first = container.push("one")
    second = container.push("two")

    overtaken = container.project.start(sourceVersion=first)
    container.project.ended(overtaken)

    assert set(container.images()) == {f"{first}-v25.2.2"}
    assert any(f"main is at {second} by now" in line for line in container.project.log(overtaken))


def test_another_version_of_the_trainer_is_another_image_of_the_same_commit(container: Container) -> None:
    commit = container.push("one")
    container.project.ended(container.project.start(sourceVersion=commit))
    version = [{"name": "KOHYA_SS_VERSION", "value": "v22.6.2"}]

    other = container.project.start(sourceVersion=commit, environmentVariablesOverride=version)
    build = container.project.ended(other)

    assert build["buildStatus"] == "SUCCEEDED", container.project.log(other)
    images = container.images()
    assert set(images) == {f"{commit}-v25.2.2", f"{commit}-v22.6.2", "latest"}
    assert images["latest"] == images[f"{commit}-v22.6.2"]


def test_an_unknown_version_fails_before_anything_is_built(container: Container) -> None:
    commit = container.push("one")
    version = [{"name": "KOHYA_SS_VERSION", "value": "v1.2.3"}]

    identifier = container.project.start(sourceVersion=commit, environmentVariablesOverride=version)
    build = container.project.ended(identifier)

    assert phases(build)["PRE_BUILD"] == "FAILED"
    assert "BUILD" not in phases(build)
    assert any("make_option_table v1.2.3" in line for line in container.project.log(identifier))


def test_a_commits_image_is_pushed_once(container: Container) -> None:
    commit = container.push("one")
    first = container.project.ended(container.project.start(sourceVersion=commit))
    again = container.project.start(sourceVersion=commit)
    build = container.project.ended(again)

    assert build["buildStatus"] == "SUCCEEDED", container.project.log(again)
    assert any("has been pushed before" in line for line in container.project.log(again))
    assert build["exportedEnvironmentVariables"] == first["exportedEnvironmentVariables"]


def test_of_two_builds_of_one_commit_at_a_time_one_pushes_and_both_succeed(
    container: Container, tmp_path: Path
) -> None:
    gate, waiting = tmp_path / "gate", tmp_path / "waiting"
    functions = container.project.source.folder / "build_steps/image.sh"
    push = "push_image() {\n"
    wait = f"    touch {waiting}-$BUILD_TIME; until test -e {gate}; do sleep 0.1; done\n"
    functions.write_text(functions.read_text().replace(push, push + wait))
    buildspec = container.project.source.folder / "buildspec.yml"
    buildspec.write_text(buildspec.read_text().replace("+%Y-%m-%dT%H:%M:%SZ", "+%s.%N"))
    commit = container.push("one")

    both = [container.project.start(sourceVersion=commit) for _ in range(2)]
    wait_for(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)
    gate.touch()
    builds = [container.project.ended(each) for each in both]

    logs = [container.project.log(each) for each in both]
    assert [build["buildStatus"] for build in builds] == ["SUCCEEDED"] * 2, logs
    assert sum("Another build has pushed" in line for log in logs for line in log) == 1
    images = container.images()
    assert set(images) == {f"{commit}-v25.2.2", "latest"}
    exported = [
        {"name": "IMAGE_DIGEST", "value": images["latest"]} in b["exportedEnvironmentVariables"]
        for b in builds
    ]
    assert exported == [True, True]


def test_a_failed_build_pushes_nothing(container: Container) -> None:
    (container.project.source.folder / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    commit = container.push("broken")

    build = container.project.ended(container.project.start(sourceVersion=commit))

    assert build["buildStatus"] == "FAILED"
    assert phases(build)["BUILD"] == "FAILED"
    assert container.images() == {}
    assert json.dumps(build["phases"], default=str).count("COMMAND_EXECUTION_ERROR") == 1
