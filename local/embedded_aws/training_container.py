"""The /opt/ml root and the process of a training job: what SageMaker puts around `docker run IMAGE train`.

Source: the developer guide, "How Amazon SageMaker runs your training image".
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.embedded_aws.image_store import ExtractedImage

INHERITED = ("LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT", "REHEARSAL_STEP_SECONDS")
REASON_LENGTH = 1024


def write_configuration(root: Path, request: Mapping[str, Any]) -> None:
    """input/config/*.json and the empty folders that a container finds."""
    for name in ("input/config", "input/data", "model", "output", "checkpoints"):
        (root / name).mkdir(parents=True, exist_ok=True)
    instance_type = request["ResourceConfig"]["InstanceType"]
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": ["algo-1"]}
    channels = {
        channel["ChannelName"]: {
            "TrainingInputMode": "File",
            "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                "S3DataDistributionType", "FullyReplicated"
            ),
            "RecordWrapperType": "None",
        }
        for channel in request.get("InputDataConfig") or []
    }
    documents = {
        "hyperparameters": request.get("HyperParameters") or {},
        "resourceconfig": {
            "current_host": "algo-1",
            "current_instance_type": instance_type,
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [group],
            "network_interface_name": "lo",
        },
        "inputdataconfig": channels,
    }
    for name, document in documents.items():
        (root / f"input/config/{name}.json").write_text(json.dumps(document), encoding="utf-8")


def environment(
    job: Mapping[str, Any], image: ExtractedImage, root: Path, kohya_home: Path, server: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of `train`.

    The image is no root of its own here, so absolute paths of its ENV that it holds are turned into paths of this
    machine. `kohya_home` stands in when the image's RUN steps, which clone the trainer, were not executed; a
    KOHYA_HOME that the user set for the server wins over both.
    """
    own = dict(item.split("=", 1) for item in image.configuration.get("Env") or [])
    result = {name: server[name] for name in INHERITED if name in server}
    result.update({name: _inside(value, image.root) for name, value in own.items()})
    result["PATH"] = os.pathsep.join([result.get("PATH", ""), server.get("PATH", os.defpath)]).strip(
        os.pathsep
    )
    result["HOME"] = str(root)
    if server.get("KOHYA_HOME") or not result.get("KOHYA_HOME", "").startswith(str(image.root)):
        result["KOHYA_HOME"] = str(kohya_home)
    result["TRAINING_ROOT"] = str(root)
    result.update(job_variables(job))
    return result


def job_variables(job: Mapping[str, Any]) -> dict[str, str]:
    """What SageMaker itself puts into the container's environment."""
    return {
        "TRAINING_JOB_NAME": job["TrainingJobName"],
        "TRAINING_JOB_ARN": job["TrainingJobArn"],
        **(job.get("Environment") or {}),
    }


def _inside(value: str, image_root: Path) -> str:
    """Each part of a colon-separated value that the image holds as an absolute path, placed below `image_root`."""

    def place(part: str) -> str:
        placed = image_root / part.lstrip("/")
        return str(placed) if part.startswith("/") and placed.exists() else part

    return ":".join(place(part) for part in value.split(":"))


def command(image: ExtractedImage) -> list[str]:
    """What runs `train` of the image's PATH. Raises FileNotFoundError when it has none.

    Python programs run on the emulator's own interpreter, in place of the image's.
    """
    own = dict(item.split("=", 1) for item in image.configuration.get("Env") or [])
    for folder in own.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        program = image.root / folder.lstrip("/") / "train"
        if program.is_file():
            first_line = program.read_bytes()[:200].split(b"\n", 1)[0]
            is_python = first_line.startswith(b"#!") and b"python" in first_line
            return [sys.executable, str(program)] if is_python else [str(program)]
    raise FileNotFoundError('exec: "train": executable file not found in $PATH')


def failure_reason(root: Path, status: int) -> str:
    """FailureReason of a job whose process ended with `status`: the first characters of output/failure."""
    code = 128 - status if status < 0 else status
    path = root / "output/failure"
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    tail = f", exit code: {code}"
    return (
        ("AlgorithmError: " + text)[: REASON_LENGTH - len(tail)] + tail
        if text
        else f"AlgorithmError: {tail[2:]}"
    )
