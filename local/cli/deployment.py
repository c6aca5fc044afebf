"""`sam build` and `sam deploy` of the one template on the embedded AWS, and what a deployed stack answers."""

import platform
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from botocore.exceptions import ClientError

from local.cli.account import Account
from local.cli.embedded import interpreter
from local.cli.failure import CommandError
from local.cli.folders import temporary_folder
from local.cli.processes import run
from local.cli.repository import ROOT

TEMPLATE = ROOT / "template.yaml"
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
ANNOUNCED = {
    "Waiting for changeset": "code uploaded, the change set is being made",
    "Changeset created": "change set made, the resources are being created",
}
SECONDS_BETWEEN_COUNTS = 5.0


def deploy(account: Account, on_line: Callable[[str], None]) -> None:
    """Build and deploy with samconfig's environment `local`. Nothing is written into the source tree."""
    assert account.embedded is not None
    overrides = parameter_overrides()
    with temporary_folder("sam-build-") as folder:
        environment = {**account.environment, "SAM_CLI_POLL_DELAY": "1", "SAM_CLI_TELEMETRY": "0"}
        built = build(folder, environment, overrides)
        on_line("functions built, sam deploy uploads their code")
        sam(
            "deploy",
            environment=environment,
            folder=folder,
            overrides=overrides,
            template=built,
            on_line=Progress(on_line),
        )


class Progress:
    """The few lines out of the many of `sam deploy` that tell how far it is."""

    def __init__(self, say: Callable[[str], None], seconds: float = SECONDS_BETWEEN_COUNTS) -> None:
        self.say, self.seconds = say, seconds
        self.created = 0
        self.said_at = time.monotonic()

    def __call__(self, line: str) -> None:
        for beginning, words in ANNOUNCED.items():
            if line.startswith(beginning):
                self.say(words)
        if line.startswith("CREATE_COMPLETE "):  # an event, which sam shows once
            self.created += 1
            if time.monotonic() - self.said_at >= self.seconds:
                self.said_at = time.monotonic()
                self.say(f"resources created: {self.created}")


def build(folder: Path, environment: Mapping[str, str], overrides: Mapping[str, str]) -> Path:
    """The built template. The functions share one folder of code, and `sam deploy` would compress it anew for each
    of them, which takes longer than everything else; it uploads an archive as it is, and only once."""
    sam("build", "--build-dir", folder / "build", environment=environment, folder=folder, overrides=overrides)
    template = folder / "build" / "template.yaml"
    text = template.read_text(encoding="utf-8")
    for code in {line.split()[-1] for line in text.splitlines() if line.strip().startswith("CodeUri: ")}:
        if (folder / "build" / code).is_dir() and code != "functions/":
            shutil.make_archive(str(folder / "build" / code), "zip", folder / "build" / code)
            text = text.replace(f"CodeUri: {code}\n", f"CodeUri: {code}.zip\n")
    template.write_text(text, encoding="utf-8")
    return template


def sam(
    command: str,
    *options: str | Path,
    environment: Mapping[str, str],
    folder: Path,
    overrides: Mapping[str, str],
    template: Path = TEMPLATE,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """`folder` is the working directory: sam and the uv that it calls leave files in it, and lock files in $TMPDIR."""
    (folder / "tmp").mkdir(exist_ok=True)
    arguments: list[str | Path] = [
        "sam",
        command,
        "--config-file",
        ROOT / "samconfig.toml",
        "--config-env",
        "local",
    ]
    arguments += ["--template-file", template, *options]
    arguments += ["--parameter-overrides", *(f"{name}={value}" for name, value in overrides.items())]
    run(
        arguments,
        what=f"sam {command}",
        folder=folder,
        environment={**environment, "TMPDIR": str(folder / "tmp")},
        on_line=on_line,
    )


def parameter_overrides() -> dict[str, str]:
    """Those of samconfig's environment `local`, and what this machine is: the embedded AWS runs the functions on its
    own interpreter, so it is what they are built for."""
    samconfig = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    written: list[str] = samconfig["local"]["deploy"]["parameters"]["parameter_overrides"]
    return {
        **dict(override.split("=", 1) for override in written),
        "LambdaRuntime": f"python{interpreter_version()}",
        "LambdaArchitecture": ARCHITECTURES.get(platform.machine().lower(), "x86_64"),
    }


def interpreter_version() -> str:
    """Of the emulator's Python, such as `3.11`."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [interpreter(), "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def stack_outputs(account: Account) -> dict[str, str]:
    """The stack's outputs by name. Raises CommandError when there is no such stack."""
    try:
        stacks = account.client("cloudformation").describe_stacks(StackName=account.stack_name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise  # who may not look does not know whether there is one
        raise CommandError(
            f"no stack {account.stack_name!r} was found ({error}). Run ./dev up for the embedded AWS, or "
            "deploy to AWS (./dev sam build, ./dev sam deploy) and have that account's credentials."
        ) from error
    return {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
