"""A training job in a container, by podman: what SageMaker itself does, where EMBEDDED_AWS_BUILDER is buildah.

There is no GPU, so the stand-in trainer takes Kohya's place in the image; everything else is the image's own.
"""

import base64
import os
import subprocess
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.embedded_aws.image_format import Reference
from local.embedded_aws.image_store import ImageNotFoundError
from local.embedded_aws.registration import run_at_shutdown

PROJECT = "/opt/project"
STAND_IN = f"{PROJECT}/local/rehearsal"
_running: set[str] = set()


@dataclass(frozen=True)
class PulledImage:
    """In podman's store, by its digest."""

    name: str


def is_chosen(environment: Mapping[str, str]) -> bool:
    return environment.get("EMBEDDED_AWS_BUILDER") == "buildah"


def pull(ecr: Any, reference: Reference, endpoint: str) -> PulledImage:
    """Asks ECR's API first, so that the role is enforced. Raises ImageNotFoundError or the API's ClientError."""
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    answer = ecr.batch_get_image(repositoryName=reference.repository, imageIds=[reference.image_id])
    if not answer["images"]:
        wanted = next(iter(reference.image_id.values()))
        raise ImageNotFoundError(f"{reference.repository} has no image {wanted}")
    digest = answer["images"][0]["imageId"]["imageDigest"]
    name = f"{urllib.parse.urlsplit(endpoint).netloc}/{reference.repository}@{digest}"
    credentials = base64.b64decode(token).decode()
    done = podman("pull", "--quiet", "--tls-verify=false", "--creds", credentials, name)
    if done.returncode:
        raise ImageNotFoundError(f"{name} cannot be pulled: {done.stderr.strip()}")
    return PulledImage(name)


def command(
    image: PulledImage, job: str, root: Path, stand_in: Path, variables: Mapping[str, str]
) -> list[str]:
    """As SageMaker runs a container: `train` after the image's entry point, /opt/ml, no network."""
    given = {**variables, "KOHYA_HOME": STAND_IN}
    options = ["--rm", "--name", job, "--network", "none", "--no-healthcheck"]
    options += ["--volume", f"{root}:/opt/ml", "--volume", f"{stand_in}:{STAND_IN}:ro"]
    tables = stand_in.parents[1] / "container" / "options"
    if tables.is_dir():  # the stand-in of this project builds its parser from them
        options += ["--volume", f"{tables}:{PROJECT}/container/options:ro"]
    for name, value in given.items():
        options += ["--env", f"{name}={value}"]
    _running.add(job)
    return ["podman", "run", *options, image.name, "train"]


def remove(job: str) -> None:
    """Also when podman itself was killed, which leaves the container behind."""
    if job in _running:
        podman("rm", "--force", "--ignore", "--time", "0", job)
        _running.discard(job)


def podman(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *words], capture_output=True, text=True, env=dict(os.environ))


def remove_all() -> None:
    for job in list(_running):
        remove(job)


run_at_shutdown(remove_all)
