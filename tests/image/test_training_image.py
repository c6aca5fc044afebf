"""The training image as it is deployed: pushed, built by its own buildspec, and run as SageMaker runs it.

Only `./dev test-image` collects this: it needs root, buildah, podman and minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from local.cli import dataset as dropping
from local.cli.demo import EXAMPLE
from local.cli.image_machine import CONTAINER, KOHYA_VERSION
from tests.container.conftest import REHEARSAL, TrainingRoot
from tests.end_to_end import source
from tests.end_to_end.journey import eventually
from tests.image.conftest import Built

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
STAND_IN = "/opt/project/local/rehearsal"
OPTIONS = f"{CONTAINER}/options:/opt/project/container/options:ro"


def described(built: Built, **identity: str) -> dict[str, Any]:
    ecr = built.stack.client("ecr")
    name = built.stack.outputs["ImageRepositoryName"]
    (found,) = ecr.describe_images(repositoryName=name, imageIds=[identity or {"imageDigest": built.digest}])[
        "imageDetails"
    ]
    return dict(found)


def commit_tag(built: Built) -> str:
    (tag,) = [tag for tag in described(built)["imageTags"] if tag != "latest"]
    return str(tag)


def manifest(built: Built, digest: str) -> str:
    name = built.stack.outputs["ImageRepositoryName"]
    (image,) = built.stack.client("ecr").batch_get_image(
        repositoryName=name, imageIds=[{"imageDigest": digest}]
    )["images"]
    return str(image["imageManifest"])


def newest_build(built: Built) -> dict[str, Any]:
    codebuild = built.stack.client("codebuild")
    ids = source.builds(built.stack)
    builds = codebuild.batch_get_builds(ids=ids)["builds"]
    return dict(max(builds, key=lambda build: build["startTime"]))


def test_the_digest_is_one_from_the_manifest_to_the_build_to_ecr(built: Built) -> None:
    text = manifest(built, built.digest)
    build = newest_build(built)

    assert "sha256:" + hashlib.sha256(text.encode()).hexdigest() == built.digest
    assert json.loads(text)["mediaType"] == DOCKER_MANIFEST
    exported = {each["name"]: each["value"] for each in build["exportedEnvironmentVariables"]}
    assert exported == {"IMAGE_TAG": commit_tag(built), "IMAGE_DIGEST": built.digest}
    assert described(built, imageTag="latest")["imageDigest"] == built.digest
    assert commit_tag(built) == f"{build['resolvedSourceVersion']}-{KOHYA_VERSION}"


def test_the_labels_name_versions_commits_and_the_option_table(built: Built, podman: Any) -> None:
    done = podman(
        "inspect", "--format", "{{json .Config.Labels}}", f"localhost/built/image:{commit_tag(built)}"
    )

    labels = json.loads(done.stdout)
    table = (CONTAINER / "options" / f"kohya_ss-{KOHYA_VERSION}.json").read_bytes()
    commits = (CONTAINER / "versions" / f"{KOHYA_VERSION}.env").read_text()
    assert labels["kohya_ss.version"] == KOHYA_VERSION
    assert labels["kohya_ss.option-table-sha256"] == hashlib.sha256(table).hexdigest()
    assert f"KOHYA_SS_COMMIT={labels['kohya_ss.commit']}\n" in commits
    assert f"TRAINER_COMMIT={labels['kohya_ss.trainer-commit']}\n" in commits
    assert labels["org.opencontainers.image.revision"] == commit_tag(built).removesuffix(f"-{KOHYA_VERSION}")
    assert labels["org.opencontainers.image.created"].endswith("Z")


def test_the_images_own_tests_ran_before_the_push(built: Built) -> None:
    logs = built.stack.client("logs")
    place = newest_build(built)["logs"]
    events = logs.get_log_events(
        logGroupName=place["groupName"], logStreamName=place["streamName"], startFromHead=True, limit=10000
    )["events"]
    text = "\n".join(event["message"] for event in events)

    assert (
        text.index("self-check: train --version: ok")
        < text.index(" passed, ")
        < text.index("latest is sha256:")
    )
    codebuild = built.stack.client("codebuild")
    (report,) = codebuild.batch_get_reports(reportArns=newest_build(built)["reportArns"])["reports"]
    counts = report["testSummary"]["statusCounts"]
    assert report["status"] == "SUCCEEDED"
    assert counts["SUCCEEDED"] == report["testSummary"]["total"] > 10
    (told,) = built.stack.mails(kind="image-built")
    assert f"Tests: {report['name']} {counts['SUCCEEDED']} succeeded" in told.get_content()


def test_a_dropped_dataset_is_trained_in_the_image_that_the_run_pinned(built: Built) -> None:
    stack = built.stack
    dropped = dropping.drop(stack.client("s3"), stack.bucket, EXAMPLE)
    record = stack.record(dropped.manifest_key.removesuffix("manifest.json"), seconds=120)

    assert record["status"] == "COMPLETED", record
    assert record["image"] == built.image
    bucket, _, key = record["model"]["uri"].removeprefix("s3://").partition("/")
    beside = key.rpartition("/")[0] + "/provenance.json"
    provenance = json.loads(stack.client("s3").get_object(Bucket=bucket, Key=beside)["Body"].read())
    assert provenance["image"] == built.image
    assert provenance["source_commit"] == commit_tag(built).removesuffix(f"-{KOHYA_VERSION}")
    assert provenance["rehearsal"] is True


@pytest.fixture
def root(tmp_path: Path) -> TrainingRoot:
    made = TrainingRoot(tmp_path / "ml")
    made.add_images()
    made.write_plan(max_train_steps=400)
    return made


def as_sagemaker(root: TrainingRoot, *more: str) -> list[str]:
    """No network, a read-only root, /opt/ml to write to; the stand-in for Kohya, because there is no GPU."""
    return [
        *("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--no-healthcheck"),
        *("--volume", f"{root.path}:/opt/ml", "--volume", f"{REHEARSAL}:{STAND_IN}:ro"),
        *("--volume", OPTIONS),
        *("--env", f"KOHYA_HOME={STAND_IN}", *more),
    ]


def test_train_ends_with_a_model_on_a_read_only_root_without_a_network(
    built: Built, podman: Any, root: TrainingRoot
) -> None:
    root.write_plan()

    done = podman(*as_sagemaker(root), f"localhost/built/image:{commit_tag(built)}", "train")

    assert done.returncode == 0, done.stdout + done.stderr
    assert root.provenance()["steps"] == 12
    assert (root.path / "model" / "cats.safetensors").stat().st_uid == 0


def test_term_reaches_train_which_saves_and_says_so(built: Built, podman: Any, root: TrainingRoot) -> None:
    (root.path / "checkpoints").mkdir()
    podman(
        *as_sagemaker(root, "--detach", "--name", "interrupted"),
        f"localhost/built/image:{commit_tag(built)}",
        "train",
    )
    eventually(lambda: "progress step=" in podman("logs", "interrupted").stdout, "progress", 60)
    follower = podman_wait(podman)

    podman("kill", "--signal", "TERM", "interrupted")
    code = follower()

    assert code not in (0, 137, 143), code
    assert "nterrupt" in (root.path / "output" / "failure").read_text()


# Of tests/container: they need torch and the trainer, which nothing but the image has.
NEEDS_TORCH = (
    *("test_acceleration.py", "test_data_order.py", "test_kept_latents.py", "test_module_names.py"),
    "test_real_loop.py",
)


def test_what_needs_torch_and_the_real_trainer_holds_in_the_image(built: Built, podman: Any) -> None:
    here = Path(__file__).parents[1] / "container"
    place = "/opt/tests/container"

    done = podman(
        *("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--no-healthcheck"),
        *("--volume", f"{here}:{place}:ro", f"localhost/built/tests:{commit_tag(built)}"),
        *("python3", "-m", "pytest", "-p", "no:cacheprovider", "--noconftest", "-ra", "--tb=short"),
        *(f"{place}/{name}" for name in NEEDS_TORCH),
    )

    print(done.stdout[-1000:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIPPED" not in done.stdout, done.stdout


def podman_wait(podman: Any) -> Any:
    """The exit code of the container, also when it is removed at once."""
    return lambda: int(podman("wait", "interrupted", timeout=130).stdout.strip() or -1)


def test_train_without_inputs_fails_with_its_reason(built: Built, podman: Any, tmp_path: Path) -> None:
    empty = TrainingRoot(tmp_path / "ml")
    empty.path.mkdir()

    done = podman(*as_sagemaker(empty), f"localhost/built/image:{commit_tag(built)}", "train")

    assert done.returncode == 1
    assert (empty.path / "output" / "failure").read_text()


def limited_to(memory: str) -> tuple[str, ...]:
    """Without swap; the kernel kills what goes beyond."""
    return ("--memory", memory, "--memory-swap", memory)


def test_train_that_needs_more_memory_than_the_container_has_is_killed_with_137(
    built: Built, podman: Any, root: TrainingRoot
) -> None:
    image = f"localhost/built/image:{commit_tag(built)}"

    # conmon leaves a file `oom` where it was started.
    done = podman(*as_sagemaker(root, *limited_to("16m")), image, "train", cwd=root.path.parent)

    assert done.returncode == 137, done.stdout + done.stderr


def test_a_trainer_that_the_kernel_kills_is_told_by_train(
    built: Built, podman: Any, root: TrainingRoot, fake_kohya: Callable[[str], Path]
) -> None:
    hungry = fake_kohya("print('allocating', flush=True)\nheld = bytearray(1 << 30)\n")
    image = f"localhost/built/image:{commit_tag(built)}"
    place = ("--volume", f"{hungry}:/opt/hungry:ro", "--env", "KOHYA_HOME=/opt/hungry")

    done = podman(*as_sagemaker(root, *place, *limited_to("256m")), image, "train", cwd=root.path.parent)

    assert done.returncode == 1, done.stdout + done.stderr
    failure = (root.path / "output" / "failure").read_text()
    assert "ran out of memory" in failure
    assert "allocating" in failure


def test_of_two_changes_in_a_row_only_the_last_layers_are_new_and_the_second_is_latest(
    built: Built, tmp_path: Path
) -> None:
    before = json.loads(manifest(built, built.digest))["layers"]
    clone = source.clone(built.stack, tmp_path)
    train = (CONTAINER / "train").read_text()

    source.push_change(clone, "main", "train", f"{train}# one\n")
    source.push_change(clone, "main", "train", f"{train}# two\n")
    builds = eventually(lambda: all_builds(built, 3), "the end of both builds", 300)

    assert [build["buildStatus"] for build in builds] == ["SUCCEEDED"] * 3
    of_each = [
        described(built, imageTag=f"{source.commit(clone, name)}-{KOHYA_VERSION}") for name in ("@~1", "@")
    ]
    assert described(built, imageTag="latest")["imageDigest"] == of_each[1]["imageDigest"]
    for image in of_each:
        after = json.loads(manifest(built, image["imageDigest"]))["layers"]
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=True)))
        # Below `train`: the base, packages, torch, what Kohya needs, tokenizers, Kohya, options, the package. Above
        # it: what the self-check leaves behind.
        assert len(after) - kept <= 2, [layer["size"] for layer in after]
        assert sum(layer["size"] for layer in after[kept:]) < 100_000
    for build in builds[1:]:
        seconds = {phase["phaseType"]: phase.get("durationInSeconds") for phase in build["phases"]}
        print(f"a change of train: {seconds['BUILD']} s to build and test, {seconds['POST_BUILD']} s to push")


def all_builds(built: Built, count: int) -> list[dict[str, Any]]:
    """Oldest first, once there are so many and all have ended."""
    found = built.stack.client("codebuild").batch_get_builds(ids=source.builds(built.stack))["builds"]
    if len(found) < count or any(build["buildStatus"] == "IN_PROGRESS" for build in found):
        return []
    return sorted(found, key=lambda build: int(build["buildNumber"]))
