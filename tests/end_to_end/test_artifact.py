"""What the default `sam build` makes, on a machine that has neither Lambda's Python nor its processor."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AARCH64 = 183  # e_machine of the ELF header, in /usr/include/elf.h EM_AARCH64
LARGEST_UNZIPPED = 250 * 1000 * 1000  # bytes; docs.aws.amazon.com, Lambda, "Lambda quotas"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("default-build")
    tools = os.environ["TOOLS_BIN"]
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0"}
    command = [
        f"{tools}/sam",
        "build",
        "--config-file",
        str(ROOT / "samconfig.toml"),
        "--region",
        "us-east-1",
    ]
    command += ["--template-file", str(ROOT / "template.yaml"), "--build-dir", str(folder / "build")]
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (built,) = [path for path in (folder / "build").iterdir() if path.is_dir()]
    return built


def test_every_shared_object_is_for_arm64_and_the_functions_python(artifact: Path) -> None:
    shared_objects = [path for path in artifact.rglob("*") if path.is_file() and ".so" in path.suffixes]
    assert len(shared_objects) > 5
    for path in shared_objects:
        header = path.read_bytes()[:20]
        assert header[:4] == b"\x7fELF", path
        assert struct.unpack("<H", header[18:20]) == (AARCH64,), path
        if "cpython-" in path.name:
            assert "cpython-313-aarch64" in path.name, path


def test_it_fits_into_a_lambda(artifact: Path) -> None:
    assert sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file()) < LARGEST_UNZIPPED


def test_every_handler_of_the_template_is_in_it(artifact: Path) -> None:
    from tests.contract.definitions import resources

    for name, properties in resources("AWS::Serverless::Function").items():
        module = properties["Handler"].removesuffix(".handler")
        assert "def handler(" in (artifact / f"{module}.py").read_text(), name


def test_nothing_local_is_deployed(artifact: Path) -> None:
    assert not [
        path for path in artifact.iterdir() if path.name in ("local", "container", "tests", "pipeline")
    ]
