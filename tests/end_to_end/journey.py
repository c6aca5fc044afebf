"""A deployed stack as a test meets it: datasets go in, records, mails and training jobs come out."""

from __future__ import annotations

import email
import email.policy
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import boto3
from PIL import Image

Answer = TypeVar("Answer")

REGION = "us-east-1"
FINAL = {"COMPLETED", "REJECTED", "REPEATED", "FAILED", "STOPPED"}
ALARM = "ALARM: "  # how CloudWatch begins the subject of an alarm's mail
# Enough for the rehearsal to learn something, little enough to be quick.
QUICK = {
    "resolution": "256,256",
    "max_train_steps": 4,
    "train_batch_size": 2,
    "network_dim": 4,
    "network_alpha": 2,
}


# Made anew, each takes more of a processor than what it is asked for, and tests ask often; botocore's are thread-safe.
@cache
def _client(endpoint: str, service: str) -> Any:
    return boto3.Session("test", "test", region_name=REGION).client(service, endpoint_url=endpoint)


@cache
def _table(endpoint: str, name: str, thread: int) -> Any:
    """One a thread: resources may not be shared."""
    session = boto3.Session("test", "test", region_name=REGION)
    return session.resource("dynamodb", endpoint_url=endpoint).Table(name)


@cache
def _run_of_job(endpoint: str, name: str) -> str | None:
    """What a training job was created with does not change."""
    job = _client(endpoint, "sagemaker").describe_training_job(TrainingJobName=name)
    run_id: str | None = job.get("HyperParameters", {}).get("run_id")
    return run_id


@cache
def _parsed(path: Path) -> email.message.EmailMessage:
    """A mail that was delivered does not change."""
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


@dataclass(frozen=True)
class Stack:
    """One deployed stack on the embedded AWS."""

    endpoint: str
    home: Path
    outputs: Mapping[str, str]

    def client(self, service: str) -> Any:
        return _client(self.endpoint, service)

    @property
    def table(self) -> Any:
        """The run table, as boto3's resource."""
        return _table(self.endpoint, self.outputs["RunTableName"], threading.get_ident())

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    def put(self, key: str, body: bytes) -> str:
        """Uploads one object; answers its version id."""
        answer = self.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        return str(answer["VersionId"])

    def drop(self, name: str, files: Mapping[str, bytes], manifest: object = None) -> str:
        """Uploads a dataset, the manifest last; answers its prefix. `manifest` may be raw bytes."""
        prefix = f"datasets/{name}/"
        for path, body in files.items():
            self.put(prefix + path, body)
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest or quick_manifest()).encode()
        self.put(prefix + "manifest.json", body)
        return prefix

    def records(self, prefix: str) -> list[dict[str, Any]]:
        """The run records of a dataset, oldest first."""
        items: list[dict[str, Any]] = self.table.scan(
            ConsistentRead=True,
            FilterExpression="dataset_prefix = :prefix",
            ExpressionAttributeValues={":prefix": prefix},
        )["Items"]
        return sorted(items, key=lambda item: item["created_at"])

    def record(self, prefix: str, status: set[str] | None = None, seconds: float = 240) -> dict[str, Any]:
        """The dataset's newest run once it has one of the statuses (default: a final one that a mail has told of)."""
        wanted = FINAL if status is None else status

        def newest() -> dict[str, Any] | None:
            found = self.records(prefix)
            # The mail goes out after the final status: whoever counts mails at that status may come too early.
            there = found and found[-1]["status"] in wanted and (status is not None or "told" in found[-1])
            return found[-1] if there else None

        return eventually(
            newest, f"a run of {prefix} in {sorted(wanted)}", seconds, lambda: self.records(prefix)
        )

    def mails(self, run_id: str | None = None, kind: str | None = None) -> list[email.message.EmailMessage]:
        """Those that the application writes; what CloudWatch writes of an alarm is not among them."""
        found = []
        for path in sorted((self.home / "mailbox").glob("*.eml")):
            mail = _parsed(path)
            if run_id is not None and mail["X-Attribute-run_id"] != run_id:
                continue
            if kind is not None and mail["X-Attribute-kind"] != kind:
                continue
            if mail["Subject"].startswith(ALARM):
                continue
            found.append(mail)
        return found

    def mails_of_runs(self) -> list[email.message.EmailMessage]:
        """Those that the application writes of runs. One of a build comes when that is over, whatever goes on then."""
        return [mail for mail in self.mails() if not mail["X-Attribute-build_id"]]

    def alarm_mails(self) -> set[str]:
        """The subjects of the mails that CloudWatch writes of alarms."""
        paths = (self.home / "mailbox").glob("*.eml")
        mails = (_parsed(path) for path in paths)
        return {str(mail["Subject"]) for mail in mails if mail["Subject"].startswith(ALARM)}

    def mail(self, run_id: str, kind: str) -> str:
        """The body of the one mail of a kind; waits for it."""
        (mail,) = eventually(lambda: self.mails(run_id, kind), f"a mail {kind} of {run_id}")
        return str(mail.get_content())

    def training_jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Training jobs that carry a run id among their hyperparameters."""
        sagemaker = self.client("sagemaker")
        names = [each["TrainingJobName"] for each in sagemaker.list_training_jobs()["TrainingJobSummaries"]]
        own = [name for name in names if _run_of_job(self.endpoint, name) == run_id]
        return [sagemaker.describe_training_job(TrainingJobName=name) for name in own]

    def execution_status(self, record: Mapping[str, Any]) -> str:
        described = self.client("stepfunctions").describe_execution(executionArn=record["execution_arn"])
        return str(described["status"])

    def execution_ended(self, record: Mapping[str, Any], seconds: float = 20) -> str:
        """The execution's status once it is over: the mail goes out a moment before."""

        def ended() -> str | None:
            status = self.execution_status(record)
            return status if status != "RUNNING" else None

        return eventually(ended, f"the end of {record['execution_arn']}", seconds)

    def report(self, record: Mapping[str, Any]) -> dict[str, Any]:
        key = f"runs/{record['run_id']}/report.json"
        body = self.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        loaded: dict[str, Any] = json.loads(body)
        return loaded

    def versions(self, prefix: str) -> dict[str, str]:
        """Key and version id → ETag of everything below a prefix, delete markers too."""
        listed = self.client("s3").list_object_versions(Bucket=self.bucket, Prefix=prefix)
        found = {f"{each['Key']}@{each['VersionId']}": each["ETag"] for each in listed.get("Versions", [])}
        return found | {
            f"{each['Key']}@{each['VersionId']}": "deleted" for each in listed.get("DeleteMarkers", [])
        }


def eventually(
    look: Callable[[], Answer | None],
    what: str,
    seconds: float = 60,
    explain: Callable[[], object] | None = None,
) -> Answer:
    """The first truthy answer of a look, or an AssertionError that says what was waited for."""
    until = time.monotonic() + seconds
    while True:
        is_last = time.monotonic() >= until  # a look is due even where the machine stood still until then
        if answer := look():
            return answer
        if is_last:
            raise AssertionError(f"{what}: not within {seconds} s; seen: {explain() if explain else look()}")
        time.sleep(0.2)


@contextmanager
def variable(stack: Stack, name: str, value: str) -> Iterator[int]:
    """Another value in the environment of every function of the stack that has the variable, and how many have it."""
    functions = stack.client("lambda")
    project = stack.outputs["StateMachineArn"].split(":")[-1]
    before = {
        each["FunctionName"]: each["Environment"]
        for each in functions.list_functions()["Functions"]
        if name in each["Environment"]["Variables"]
        and each["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == project
    }
    for function, environment in before.items():
        other = {"Variables": {**environment["Variables"], name: value}}
        functions.update_function_configuration(FunctionName=function, Environment=other)
    try:
        yield len(before)
    finally:
        for function, environment in before.items():
            functions.update_function_configuration(FunctionName=function, Environment=environment)


def image(seed: int, size: tuple[int, int] = (320, 320), kind: str = "JPEG") -> bytes:
    """A small picture with some structure, different for every seed."""
    picture = Image.linear_gradient("L").resize(size).rotate(37 * seed)
    coloured = Image.merge(
        "RGB", (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.rotate(90))
    )
    written = io.BytesIO()
    coloured.resize(size).save(written, kind)
    return written.getvalue()


def dataset(images: int = 4, folder: str = "2_phx thing") -> dict[str, bytes]:
    """Images with captions, in Kohya's layout."""
    files: dict[str, bytes] = {}
    for number in range(images):
        files[f"{folder}/{number:02}.jpg"] = image(number + images)
        files[f"{folder}/{number:02}.txt"] = f"phx thing number {number}".encode()
    return files


def quick_manifest(**keys: Any) -> dict[str, Any]:
    return {"version": 1, "config": QUICK, **keys}


def drop_long_run(stack: Stack, name: str, steps: int = 4000) -> tuple[str, dict[str, Any]]:
    """A dataset in the middle of its training."""
    manifest = quick_manifest(config={**quick_manifest()["config"], "max_train_steps": steps})
    prefix = stack.drop(name, dataset(3), manifest)
    record = stack.record(prefix, {"TRAINING"})
    eventually(lambda: stack.training_jobs(record["run_id"]), "a training job")
    return prefix, record
