"""Images that are assembled without a container builder: Dockerfiles, layers, and the `docker` of a build."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.embedded_aws import image_builder, image_store
from local.embedded_aws.dockerfile import DockerfileError, pairs, read_dockerfile, substitute
from local.embedded_aws.image_assembly import assemble_image
from local.embedded_aws.image_format import Image, LayerFile, Reference, layer_of, parse_reference
from tests.embedded_aws.running import RunningEmbeddedAws

REGISTRY = "000000000000.dkr.ecr.us-east-1.amazonaws.com"

DOCKERFILE = """
# a comment
ARG BASE=python
ARG TAG=3.11

FROM ${BASE}:${TAG} AS source
RUN git clone somewhere \\
    && make
FROM ${BASE}:${TAG}
COPY --from=source /made /made
ARG VERSION=v1
ENV PATH=/opt/training:/usr/bin \\
    NAME="two words" VERSION_TOO=${VERSION}
WORKDIR /opt
WORKDIR training
COPY --chmod=755 train .
COPY package/ package/
LABEL version="${VERSION}"
ENTRYPOINT ["dumb-init", "--"]
CMD ["train"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "package/deep").mkdir(parents=True)
    (tmp_path / "train").write_text("#!/bin/sh\n")
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/deep/data.json").write_text("{}")
    (tmp_path / "package/deep/left.pyc").write_text("compiled")
    (tmp_path / ".dockerignore").write_text("# what is left out\n**/*.pyc\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def assembled(context: Path, **arguments: str) -> tuple[Image, list[str]]:
    said: list[str] = []
    image, _ = assemble_image(read_dockerfile(DOCKERFILE), context, arguments, {"commit": "abc"}, said.append)
    return image, said


def configuration(image: Image) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(image.configuration)["config"]
    return found


def files(image: Image) -> dict[str, int]:
    """Path → mode of every file of every layer."""
    found = {}
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
            found.update({entry.name: entry.mode for entry in tar})
    return found


def test_an_image_has_the_dockerfiles_configuration(context: Path) -> None:
    image, said = assembled(context, VERSION="v2")

    assert configuration(image) == {
        "Cmd": ["train"],
        "Entrypoint": ["dumb-init", "--"],
        "Env": ["PATH=/opt/training:/usr/bin", "NAME=two words", "VERSION_TOO=v2"],
        "Labels": {"version": "v2", "commit": "abc"},
        "WorkingDir": "/opt/training",
    }
    assert "COPY --from=source /made /made: skipped, that stage's RUN steps were not executed" in said


def test_an_image_has_one_layer_a_copy(context: Path) -> None:
    image, _ = assembled(context)

    assert len(image.layers) == 2
    assert files(image) == {
        "opt/training/train": 0o755,
        "opt/training/package/__init__.py": 0o644,
        "opt/training/package/deep/data.json": 0o644,
    }


def test_the_same_files_give_the_same_digest(context: Path) -> None:
    first, _ = assembled(context)
    (context / "train").touch()
    second, _ = assembled(context)
    (context / "train").write_text("#!/bin/sh\nexit 1\n")
    third, _ = assembled(context)

    assert first.digest == second.digest != third.digest


def test_the_manifest_is_a_docker_one_whose_digests_are_true(context: Path) -> None:
    image, _ = assembled(context)
    manifest = json.loads(image.manifest)

    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert [layer["size"] for layer in manifest["layers"]] == [len(layer) for layer in image.layers]
    difference = json.loads(image.configuration)["rootfs"]["diff_ids"]
    assert len(set(difference)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("COPY a b", "COPY before the first FROM"),
        ("FROM a\nTELEPORT b", "unknown instruction TELEPORT"),
        ("# nothing", "no FROM"),
    ],
)
def test_a_file_that_is_no_dockerfile_is_refused(text: str, says: str) -> None:
    with pytest.raises(DockerfileError, match=says):
        read_dockerfile(text)


def test_a_copy_of_what_is_not_there_fails(context: Path) -> None:
    with pytest.raises(DockerfileError, match='line 2: COPY failed: "missing"'):
        assemble_image(read_dockerfile("FROM a\nCOPY missing /x"), context, {}, {}, lambda line: None)


def test_a_stage_continues_another(context: Path) -> None:
    text = "FROM scratch AS base\nENV A=1\nCOPY train /bin/train\nFROM base\nENV B=$A\n"

    image, _ = assemble_image(read_dockerfile(text), context, {}, {}, lambda line: None)

    assert {"A=1", "B=1"} <= set(configuration(image)["Env"])
    assert list(files(image)) == ["bin/train"]


def test_a_target_is_the_last_stage_that_is_built(context: Path) -> None:
    dockerfile = read_dockerfile("FROM scratch AS one\nENV A=1\nFROM one AS two\nENV B=2\n")

    image, _ = assemble_image(dockerfile.until("one"), context, {}, {}, lambda line: None)

    assert "A=1" in configuration(image)["Env"]
    assert "B=2" not in configuration(image)["Env"]
    with pytest.raises(DockerfileError, match="target stage three"):
        dockerfile.until("three")


def test_variables_are_substituted() -> None:
    assert substitute("$A ${A} ${B:-none} ${A:+some} ${B:+some} \\$A", {"A": "1"}) == "1 1 none some  $A"
    assert pairs('a=1 b="two words"') == {"a": "1", "b": "two words"}
    assert pairs("OLD form of ENV") == {"OLD": "form of ENV"}


def test_references_name_registry_repository_tag_and_digest() -> None:
    digest = "sha256:" + "a" * 64
    assert parse_reference(f"{REGISTRY}/kohya:one") == Reference(REGISTRY, "us-east-1", "kohya", "one", None)
    assert parse_reference(f"{REGISTRY}/kohya@{digest}") == Reference(
        REGISTRY, "us-east-1", "kohya", None, digest
    )
    assert parse_reference("docker.io/library/python:3.11") is None


# The command


@pytest.fixture
def docker(aws: RunningEmbeddedAws, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new repository, in an environment like a build's."""
    aws.client("ecr").create_repository(repositoryName=unique)
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("EMBEDDED_AWS_BUILDER", raising=False)
    return f"{REGISTRY}/{unique}"


def test_docker_builds_pushes_and_tells_the_digest_that_ecr_reports(
    aws: RunningEmbeddedAws, unique: str, docker: str, context: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        image_builder.main(
            [
                "build",
                "--provenance=false",
                "--cache-from",
                f"{docker}:latest",
                "-t",
                f"{docker}:one",
                str(context),
            ]
        )
        == 0
    )
    assert image_builder.main(["push", f"{docker}:one"]) == 0
    output = capsys.readouterr().out
    assert image_builder.main(["inspect", "--format", "{{index .RepoDigests 0}}", f"{docker}:one"]) == 0
    digest = capsys.readouterr().out.strip()

    assert "RUN steps were not executed: this machine has no container builder" in output
    detail = aws.client("ecr").describe_images(repositoryName=unique, imageIds=[{"imageTag": "one"}])[
        "imageDetails"
    ][0]
    assert digest == f"{docker}@{detail['imageDigest']}"
    image, _ = assemble_image(read_dockerfile(DOCKERFILE), context, {}, {}, lambda line: None)
    sizes = [len(image.configuration), *map(len, image.layers)]
    assert detail["imageSizeInBytes"] == sum(sizes)


def test_docker_tags_and_pulls(
    docker: str, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image_builder.main(["pull", f"{docker}:latest"]) == 1
    assert image_builder.main(["build", "-t", f"{docker}:one", str(context)]) == 0
    assert image_builder.main(["tag", f"{docker}:one", f"{docker}:latest"]) == 0
    assert image_builder.main(["push", f"{docker}:latest"]) == 0
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    assert image_builder.main(["pull", "--quiet", docker]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "x"],
        ["build", "--squash", "."],
        ["build"],
        ["push", "python:3"],
        ["inspect", "never-built"],
        [],
    ],
)
def test_what_is_not_emulated_is_an_error(docker: str, words: list[str]) -> None:
    assert image_builder.main(words) == 1


# ECR


def test_an_image_whose_layers_ecr_never_saw_is_refused(
    aws: RunningEmbeddedAws, unique: str, context: Path
) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    image, _ = assembled(context)

    with pytest.raises(ClientError) as refused:
        ecr.put_image(repositoryName=unique, imageManifest=image.manifest.decode(), imageTag="one")

    assert refused.value.response["Error"]["Code"] == "LayersNotFoundException"


def test_a_layer_is_checked_against_its_digest(aws: RunningEmbeddedAws, unique: str) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    upload = ecr.initiate_layer_upload(repositoryName=unique)["uploadId"]
    ecr.upload_layer_part(
        repositoryName=unique, uploadId=upload, partFirstByte=0, partLastByte=2, layerPartBlob=b"abc"
    )

    with pytest.raises(ClientError) as refused:
        ecr.complete_layer_upload(repositoryName=unique, uploadId=upload, layerDigests=["sha256:" + "0" * 64])

    assert refused.value.response["Error"]["Code"] == "InvalidLayerException"


def test_a_commits_tag_is_immutable_and_latest_moves(
    aws: RunningEmbeddedAws, unique: str, context: Path
) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(
        repositoryName=unique,
        imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "latest*"}],
    )
    one, _ = assembled(context, VERSION="v1")
    two, _ = assembled(context, VERSION="v2")

    def push(image: Image, tag: str) -> str:
        return image_store.push(ecr, Reference(REGISTRY, "us-east-1", unique, tag, None), image)

    assert push(one, "commit") == push(one, "commit") == one.digest
    assert (push(one, "latest"), push(two, "latest")) == (one.digest, two.digest)
    with pytest.raises(ClientError) as refused:
        push(two, "commit")
    assert refused.value.response["Error"]["Code"] == "ImageTagAlreadyExistsException"


def test_what_was_pushed_is_extracted_once(
    aws: RunningEmbeddedAws, unique: str, context: Path, tmp_path: Path
) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    image, _ = assembled(context)
    reference = Reference(REGISTRY, "us-east-1", unique, "one", None)
    image_store.push(ecr, reference, image)

    extracted = image_store.extract(ecr, reference, aws.endpoint, tmp_path / "images")

    assert extracted.digest == image.digest
    assert extracted.configuration["Cmd"] == ["train"]
    assert (extracted.root / "opt/training/train").stat().st_mode & 0o111
    assert image_store.extract(ecr, reference, aws.endpoint, tmp_path / "images") == extracted


def test_a_layer_cannot_leave_the_images_folder(aws: RunningEmbeddedAws, unique: str, tmp_path: Path) -> None:
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName=unique)
    from local.embedded_aws.image_format import assemble

    image = assemble({}, [layer_of([LayerFile("../outside", b"x", False)])])
    reference = Reference(REGISTRY, "us-east-1", unique, "one", None)
    image_store.push(ecr, reference, image)

    with pytest.raises(image_store.ImageNotFoundError, match="outside the image"):
        image_store.extract(ecr, reference, aws.endpoint, tmp_path / "images")

    assert list((tmp_path / "images").iterdir()) == []
