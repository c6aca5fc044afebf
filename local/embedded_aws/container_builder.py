"""`docker` of a build on a machine with buildah and podman: images are really built, run, and pushed.

Chosen by EMBEDDED_AWS_BUILDER=buildah. What the machine must do otherwise than CodeBuild, such as another base image,
is in EMBEDDED_AWS_BUILD_ARGUMENTS, which `buildah build` gets beside what the buildspec says.
"""

import os
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.embedded_aws.image_format import parse_reference

# Of `docker build`: what buildah has no use for. Layers are its own cache; it makes no attestations.
WITHOUT_EFFECT = frozenset({"--provenance", "--sbom", "--load", "--progress", "--cache-from", "--cache-to"})
WITH_VALUE = frozenset({"--progress", "--cache-from", "--cache-to"})
RUN_DIRECTLY = ("run", "inspect", "images", "rm", "rmi")


class UsageError(Exception):
    """The command line is not one that is emulated."""


def main(words: Sequence[str]) -> int:
    try:
        command = translate(list(words), os.environ)
    except UsageError as error:
        print(f"docker: {error}", file=sys.stderr)
        return 1
    if not command:
        return 0
    return subprocess.run(command, check=False).returncode


def translate(words: list[str], environment: Mapping[str, str]) -> list[str]:
    """The command of buildah or podman that does it; none for what the login leaves to do."""
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name in ("buildx", "image") and rest:
        name, rest = rest[0], rest[1:]
    if name == "build":
        more = shlex.split(environment.get("EMBEDDED_AWS_BUILD_ARGUMENTS", ""))
        return [
            "buildah",
            "bud",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--layers",
            *more,
            *_known(rest),
        ]
    if name in ("push", "pull"):
        return _transfer(name, rest, environment)
    if name == "tag":
        return ["buildah", "tag", *rest]
    if name == "login":
        return _login(rest, environment)
    if name in RUN_DIRECTLY:
        return ["podman", name, *rest]
    raise UsageError(f"docker {name} is not emulated")


def _known(words: list[str]) -> list[str]:
    kept, pending = [], list(words)
    while pending:
        word = pending.pop(0)
        flag, has_value, _ = word.partition("=")
        if flag not in WITHOUT_EFFECT:
            kept.append(word)
        elif flag in WITH_VALUE and not has_value:
            pending.pop(0)
    return kept


def _transfer(name: str, words: list[str], environment: Mapping[str, str]) -> list[str]:
    """Only to and from the registry that the embedded AWS is."""
    reference = next((word for word in words if not word.startswith("-")), "")
    parsed = parse_reference(reference)
    if parsed is None:
        raise UsageError(f"{reference} is not in an ECR registry")
    password = _password(environment)
    if not password.is_file():
        raise UsageError("no basic auth credentials: docker login comes first")
    place = urllib.parse.urlsplit(environment["AWS_ENDPOINT_URL"]).netloc
    credentials = f"AWS:{password.read_text().strip()}"
    served = f"docker://{place}/{parsed.repository}:{parsed.tag or 'latest'}"
    options = ["--tls-verify=false", "--creds", credentials]
    if name == "push":
        # Fast rather than small: nothing travels further than this machine.
        options += ["--format", "v2s2", "--compression-format", "gzip", "--compression-level", "1"]
        return ["buildah", "push", *options, reference, served]
    return ["podman", "pull", *options, served.removeprefix("docker://")]


def _login(words: list[str], environment: Mapping[str, str]) -> list[str]:
    password = sys.stdin.read().strip() if "--password-stdin" in words else ""
    if not password:
        raise UsageError("docker login requires a password on stdin")
    path = _password(environment)
    path.touch(mode=0o600)
    path.write_text(password)
    print("Login Succeeded")
    return []


def _password(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) / ".ecr-password"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
