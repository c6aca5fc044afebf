"""`./dev demo`: the whole path on the embedded AWS, in the order in which a user of AWS meets it."""

import os
import random
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from local.cli import dataset, embedded, image_machine, image_source, mailbox, model_view, records
from local.cli.account import Account, embedded_account
from local.cli.deployment import deploy, stack_outputs
from local.cli.failure import CommandError
from local.cli.mailbox import Mail, is_final
from local.cli.model_view import Model
from local.cli.records import Record
from local.cli.repository import ROOT
from local.cli.run_view import RunView
from local.cli.verdict import Claim, Stopwatch, show_claims, show_times
from local.dataset_folder import files_of

EXAMPLE = ROOT / "examples" / "photographs"
SECONDS_TO_RUN = 600.0
# What a user should not wait longer for; shown, not judged: a busy machine is no fault of the system.
DECISION_SECONDS = 2
MAIL_SECONDS = 5


def run(folder: Path) -> int:
    """Exit code 0 only when every claim at the end holds."""
    files_of(folder)
    console = Console()
    begun = time.monotonic()
    stopwatch = Stopwatch()
    heading(console, "The embedded AWS starts, policies enforced")
    builder = image_machine.offered(os.environ, partial(console.print, highlight=False, soft_wrap=True))
    with ExitStack() as running:
        with stopwatch.stage("embedded AWS started"):
            server = running.enter_context(embedded.temporary(builder))
        console.print(f"{server.endpoint}, everything it writes in {server.home}", highlight=False)
        demonstration = Demonstration(console, embedded_account(server), stopwatch)
        try:
            claims = demonstration.show(folder)
        except CommandError:
            demonstration.show_logs()
            raise
        if builder:
            image_machine.keep()
        heading(console, "Times")
        show_times(console, "stages of the demo", stopwatch.stages, time.monotonic() - begun)
    heading(console, "What was shown")
    holds = show_claims(console, claims)
    console.print(
        "It proves no quota, no eventual consistency and none of SageMaker's own behaviour.",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if holds else 1


def heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]", highlight=False)


class Demonstration:
    """The steps, each shown while it happens."""

    def __init__(self, console: Console, account: Account, stopwatch: Stopwatch) -> None:
        assert account.embedded is not None
        self.console = console
        self.account = account
        self.mailbox = account.embedded.mailbox
        self.stopwatch = stopwatch
        self.outputs: dict[str, str] = {}

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, folder: Path) -> list[Claim]:
        self.deploy()
        self.push_image_source()
        record, mail = self.run_dataset(folder)
        completed = record.get("status") == "COMPLETED"
        # A dataset whose run failed would be run again: there is nothing to repeat.
        repetition = self.repeat_dataset(folder, record) if completed else {}
        claims = self.prove(record, mail, repetition)
        if not completed:
            self.show_logs()
        return claims

    def show_logs(self) -> None:
        """Why it failed; the folder that holds the logs is gone at the end of the demo."""
        home = self.mailbox.parent
        jobs = sorted((home / "logs" / "training").glob("*.log"))
        for log in (home / "server.log", *jobs):
            heading(self.console, f"The end of {log.name}")
            self.say(embedded.tail(log))

    def deploy(self) -> None:
        heading(self.console, "sam build and sam deploy of template.yaml, samconfig's environment `local`")
        with self.stopwatch.stage("sam build and sam deploy"):
            deploy(self.account, self.say)
        self.outputs = stack_outputs(self.account)
        self.say(f"stack {self.account.stack_name} deployed, bucket {self.outputs['BucketName']}")

    def push_image_source(self) -> None:
        heading(self.console, "git push of container/ to CodeCommit; the push alone starts the build")
        with self.stopwatch.stage("image built from the push"):
            commit = image_source.push(self.account, self.outputs)
            self.say(f"pushed {commit[:12]} to {self.outputs['ImageSourceRepositoryName']}, branch main")
            image = image_source.wait_for_image(self.account, self.outputs, commit, self.say)
        self.say(image.uri)
        if image.remark:
            self.say(image.remark)

    def run_dataset(self, folder: Path) -> tuple[Record, Mail | None]:
        """The run's last record, and its final e-mail if one came."""
        heading(self.console, f"{folder.name} dropped, images and manifest in arbitrary order")
        with self.stopwatch.stage("dataset dropped, run, mailed"):
            s3, order = self.account.client("s3"), random.Random()
            dropped = dataset.drop(s3, self.outputs["BucketName"], folder, order)
            self.say(
                f"{dropped.files} files, {dropped.size / 1e6:.1f} MB, s3://{dropped.bucket}/{dropped.manifest_key}"
            )
            table = records.table_of(self.account, self.outputs)
            run_id = records.wait_for_run(table, dropped)
            self.say(f"run {run_id}")
            record = RunView(self.console).follow(records.follow(table, run_id, SECONDS_TO_RUN))
            mail = mailbox.final(self.mailbox, run_id)
        self.measure(record, dropped.at, mail)
        return record, mail

    def measure(self, record: Record, dropped_at: datetime, mail: Mail | None) -> None:
        """The two delays that a user feels; the run's own stages are in its history."""
        changes = records.moments(record)
        self.stopwatch.between(
            f"  manifest to first decision (aim {DECISION_SECONDS} s)", dropped_at, changes[0][1]
        )
        for (status, since), (_, until) in pairwise(changes):
            self.stopwatch.between(f"  {status.lower().replace('_', ' ')}", since, until)
        job = (record.get("observation") or {}).get("training_job")
        if job and mail:
            described = self.account.client("sagemaker").describe_training_job(TrainingJobName=job)
            # A job that never got to train has no such time.
            ended: datetime | None = described.get("TrainingEndTime")
            if ended:
                name = f"  job's end to the mail (aim {MAIL_SECONDS} s)"
                self.stopwatch.between(name, ended.astimezone(UTC), mail.at)

    def repeat_dataset(self, folder: Path, record: Record) -> Record:
        heading(self.console, "The same dataset dropped again")
        with self.stopwatch.stage("dropped again and answered"):
            dropped = dataset.drop(self.account.client("s3"), self.outputs["BucketName"], folder)
            table = records.table_of(self.account, self.outputs)
            run_id = records.wait_for_run(table, dropped)
            self.say(f"run {run_id}")
            repetition = RunView(self.console).follow(records.follow(table, run_id, SECONDS_TO_RUN))
            first = str(record["run_id"])
            mailbox.wait_for(
                self.mailbox,
                lambda mail: bool(mailbox.about([mail], run_id)) and first in mail.body,
                f"about {first}",
            )
        return repetition

    def prove(self, record: Record, mail: Mail | None, repetition: Record) -> list[Claim]:
        """`repetition` is empty where nothing was dropped again."""
        heading(self.console, "E-mails that SNS delivered")
        mails = mailbox.read(self.mailbox)
        for each in mails:
            self.say(f"--- {each.subject}\n{each.body.strip()}\n")
        heading(self.console, "The model")
        uri = (record.get("model") or {}).get("uri")
        model = model_view.open_model(self.account.client("s3"), uri) if uri else None
        self.say(describe(model) if model else "there is none")
        self.say(f"report: {record.get('report_uri')}")
        return [
            Claim("the run completed", record.get("status") == "COMPLETED"),
            Claim(
                "exactly one final e-mail tells of it",
                [is_final(m, str(record["run_id"])) for m in mails].count(True) == 1,
            ),
            Claim("the e-mail names the model's address", bool(uri and mail and uri in mail.body)),
            Claim(
                "the model's tensors are neither empty, nor NaN, nor all zero", bool(model and model.is_sound)
            ),
            Claim("a rehearsal calls itself one in the e-mail", tells_rehearsal(model, mail)),
            Claim("the report is in the bucket", self.exists(str(record.get("report_uri") or ""))),
            Claim(
                "the second drop was answered with the run it repeats",
                repetition.get("repeats") == record["run_id"],
            ),
        ]

    def exists(self, uri: str) -> bool:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        found = self.account.client("s3").list_objects_v2(Bucket=bucket, Prefix=key) if key else {}
        return any(item["Key"] == key for item in found.get("Contents", []))


def tells_rehearsal(model: Model | None, mail: Mail | None) -> bool:
    if model is None or mail is None:
        return False
    return ("rehearsal" in (mail.subject + mail.body).lower()) == model.is_rehearsal


def describe(model: Model) -> str:
    ranks = ", ".join(str(rank) for rank in model.ranks)
    kind = (
        "REHEARSAL: made by the stand-in trainer on this CPU, of no use in a real pipeline"
        if model.is_rehearsal
        else ""
    )
    lines = [
        model.uri,
        f"{model.tensors} tensors, rank {ranks}, {model.size / 1e6:.2f} MB",
        f"{model.not_finite} with NaN or infinity, {'all zero' if model.all_zero else 'not all zero'}",
        kind,
    ]
    return "\n".join(line for line in lines if line)
