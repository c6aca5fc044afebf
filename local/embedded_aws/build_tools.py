"""What a build finds on its PATH before everything else: `docker`, and `aws` where the machine has none."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ("docker", "podman", "buildah")
PASSED_ON = (
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "EMBEDDED_AWS_BUILD_ARGUMENTS",
)
"""What buildah and podman are told of where they work."""


def write_tools(folder: Path, path: str, environment: Mapping[str, str]) -> Path:
    """Write the commands into `folder`; `path` is the machine's PATH.

    Images are assembled without running a step unless EMBEDDED_AWS_BUILDER is buildah: a real build takes
    minutes and gigabytes, which nobody should get by having buildah installed.
    """
    folder.mkdir(parents=True)
    if environment.get("EMBEDDED_AWS_BUILDER") == "buildah":
        variables = {name: environment[name] for name in PASSED_ON if name in environment}
        _write(folder / "docker", "local.embedded_aws.container_builder", variables)
    else:
        builder = next((name for name in BUILDERS if shutil.which(name, path=path)), "")
        _write(folder / "docker", "local.embedded_aws.image_builder", {"EMBEDDED_AWS_BUILDER": builder})
    if not has_aws_command(path):
        _write(folder / "aws", "local.embedded_aws.aws_command", {})
    return folder


@cache
def has_aws_command(path: str) -> bool:
    """Whether the machine's AWS CLI, if there is one, starts: a version manager leaves commands that do not."""
    command = shutil.which("aws", path=path)
    return command is not None and subprocess.run([command, "--version"], capture_output=True).returncode == 0


def _write(command: Path, module: str, variables: dict[str, str]) -> None:
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    command.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH={shlex.quote(str(ROOT))} PYTHONDONTWRITEBYTECODE=1 {assignments} "
        f'exec {shlex.quote(sys.executable)} -m {module} "$@"\n'
    )
    command.chmod(0o755)
