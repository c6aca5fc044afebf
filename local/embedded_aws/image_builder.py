"""`docker` of a build: what a buildspec uses of it, without a daemon. RUN steps are not executed, and it says so.

It keeps its images below $HOME, which is the build's own, and talks to ECR's API with the build's credentials.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from local.embedded_aws import image_store
from local.embedded_aws.dockerfile import DockerfileError, read_dockerfile
from local.embedded_aws.image_assembly import assemble_image
from local.embedded_aws.image_format import Image, Reference, digest_of, parse_reference

VALUED = {
    "-t": "tag",
    "--tag": "tag",
    "-f": "file",
    "--file": "file",
    "--build-arg": "build-arg",
    "--label": "label",
    "--target": "target",
}
VALUED_WITHOUT_EFFECT = frozenset({"--cache-from", "--cache-to", "--platform", "--progress", "--network"})
WITHOUT_EFFECT = frozenset(
    {"--provenance", "--sbom", "--load", "--pull", "--no-cache", "--quiet", "-q", "--rm"}
)


class UsageError(Exception):
    """The command line is not one that is emulated."""


@dataclass
class BuildOptions:
    context: Path
    file: str | None = None
    tags: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    target: str | None = None
    push: bool = False


class LocalImages:
    """Images by digest, and their names, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, folder / "names.json"

    def save(self, image: Image, name: str) -> None:
        folder = self._folder / image.digest.removeprefix("sha256:")
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / "manifest").write_bytes(image.manifest)
            (folder / "configuration").write_bytes(image.configuration)
            for number, layer in enumerate(image.layers):
                (folder / f"layer-{number:03}").write_bytes(layer)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._names.write_text(json.dumps({**self.names(), name: image.digest}))

    def names(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._names.read_text()) if self._names.is_file() else {}
        return found

    def find(self, name: str) -> Image:
        digest = self.names().get(name)
        if digest is None:
            raise UsageError(f"Error: No such image: {name}")
        folder = self._folder / digest.removeprefix("sha256:")
        layers = tuple(path.read_bytes() for path in sorted(folder.glob("layer-*")))
        return Image((folder / "manifest").read_bytes(), (folder / "configuration").read_bytes(), layers)


def main(words: Sequence[str]) -> int:
    images = LocalImages(Path(os.environ["HOME"]) / ".embedded-docker")
    command, arguments = (words[0], list(words[1:])) if words else ("", [])
    if (
        command in ("buildx", "image")
        and arguments
        and arguments[0] in ("build", "push", "tag", "pull", "inspect")
    ):
        command = arguments.pop(0)
    commands = {
        "build": build,
        "push": push,
        "pull": pull,
        "tag": tag,
        "inspect": inspect,
        "login": login,
        "run": run,
    }
    try:
        if command not in commands:
            raise UsageError(
                f"docker {command} is not emulated: images are assembled without a container builder"
            )
        return commands[command](arguments, images)
    except (UsageError, DockerfileError, image_store.ImageNotFoundError) as error:
        print(f"docker: {error}", file=sys.stderr)
    except ClientError as error:
        print(f"denied: {error}", file=sys.stderr)
    return 1


def read_options(words: Sequence[str]) -> BuildOptions:
    """The options of `docker build`. An unknown one is an error, so that none is lost silently."""
    found: dict[str, list[str]] = {name: [] for name in VALUED.values()}
    rest, push_after = [], False
    pending = list(words)
    while pending:
        word = pending.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            rest.append(word)
        elif flag in VALUED:
            found[VALUED[flag]].append(value if has_value else pending.pop(0))
        elif flag in VALUED_WITHOUT_EFFECT:
            if not has_value:
                pending.pop(0)
        elif flag == "--push":
            push_after = True
        elif flag not in WITHOUT_EFFECT:
            raise UsageError(f"unknown flag: {flag}")
    if len(rest) != 1:
        raise UsageError("docker build requires exactly one context")

    def named(items: list[str]) -> dict[str, str]:
        return {
            name: value if sign else os.environ.get(name, "")
            for name, sign, value in (i.partition("=") for i in items)
        }

    return BuildOptions(
        Path(rest[0]),
        found["file"][-1] if found["file"] else None,
        [with_tag(name) for name in found["tag"]],
        named(found["build-arg"]),
        named(found["label"]),
        found["target"][-1] if found["target"] else None,
        push_after,
    )


def with_tag(name: str) -> str:
    """`name` with `:latest` when it has neither tag nor digest."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def build(words: list[str], images: LocalImages) -> int:
    options = read_options(words)
    path = Path(options.file) if options.file else options.context / "Dockerfile"
    dockerfile = read_dockerfile(path.read_text(encoding="utf-8"))
    if options.target:
        dockerfile = dockerfile.until(options.target)
    image, steps = assemble_image(dockerfile, options.context, options.arguments, options.labels, print)
    if steps:
        print(f"RUN steps were not executed: {reason_without_builder()}")
    for name in options.tags or ["<none>:<none>"]:
        images.save(image, name)
        print(f"naming to {name} done")
    print(f"exporting manifest {image.digest} done")
    return push(options.tags, images) if options.push else 0


def reason_without_builder() -> str:
    """The machine's builder, if it has one, would build for a registry that is not the emulated one."""
    builder = os.environ.get("EMBEDDED_AWS_BUILDER")
    return f"{builder} of this machine is not used" if builder else "this machine has no container builder"


def run(words: list[str], images: LocalImages) -> int:
    """An image whose RUN steps were not executed cannot run; that is said, and is no failure of the build."""
    print(f"docker run {' '.join(words)}: not run, {reason_without_builder()}")
    return 0


def push(words: list[str], images: LocalImages) -> int:
    for word in (word for word in words if not word.startswith("-")):
        name = with_tag(word)
        reference = in_registry(name)
        image = images.find(name)
        digest = image_store.push(ecr_client(reference), reference, image)
        images.save(image, f"{reference.registry}/{reference.repository}@{digest}")
        print(f"{reference.tag}: digest: {digest} size: {len(image.manifest)}")
    return 0


def pull(words: list[str], images: LocalImages) -> int:
    name = with_tag([word for word in words if not word.startswith("-")][-1])
    reference = in_registry(name)
    image = image_store.fetch(ecr_client(reference), reference, os.environ["AWS_ENDPOINT_URL"])
    images.save(image, name)
    images.save(image, f"{reference.registry}/{reference.repository}@{image.digest}")
    print(f"Digest: {image.digest}")
    return 0


def tag(words: list[str], images: LocalImages) -> int:
    old, new = map(with_tag, words)
    images.save(images.find(old), new)
    return 0


def inspect(words: list[str], images: LocalImages) -> int:
    """`--format` knows `{{index .RepoDigests 0}}`, `{{.Id}}` and `{{json .Config}}`."""
    options, template = list(words), ""
    for flag in ("--format", "-f"):
        if flag in options:
            template = options.pop(options.index(flag) + 1)
            options.remove(flag)
    template = next((word.partition("=")[2] for word in options if word.startswith("--format=")), template)
    name = with_tag([word for word in options if not word.startswith("-")][-1])
    image = images.find(name)
    repository = name.rpartition(":")[0]
    digests = [f"{repository}@{image.digest}"] if f"{repository}@{image.digest}" in images.names() else []
    configuration = json.loads(image.configuration)["config"]
    described: dict[str, Any] = {
        "Id": digest_of(image.configuration),
        "RepoDigests": digests,
        "Config": configuration,
    }
    match template:
        case "":
            print(json.dumps([described], indent=4))
        case "{{index .RepoDigests 0}}":
            if not digests:
                raise UsageError("template parsing error: error calling index: index out of range: 0")
            print(digests[0])
        case "{{.Id}}":
            print(described["Id"])
        case "{{json .Config}}":
            print(json.dumps(configuration))
        case _:
            raise UsageError(f"template is not emulated: {template}")
    return 0


def login(words: list[str], images: LocalImages) -> int:
    """The password is asked for and not used: every request is signed with the build's own credentials."""
    if "--password-stdin" not in words or not sys.stdin.read().strip():
        raise UsageError("docker login requires a password on stdin")
    print("Login Succeeded")
    return 0


def in_registry(name: str) -> Reference:
    reference = parse_reference(name)
    if reference is None:
        raise UsageError(f"{name} is not in an ECR registry")
    return reference


def ecr_client(reference: Reference) -> Any:
    return boto3.client("ecr", region_name=reference.region)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
