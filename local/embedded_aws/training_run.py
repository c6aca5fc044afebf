"""The life of a training job: inputs, image, process, outputs; stop, time limit and spot interruption."""

import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.embedded_aws import container_run, training_container, training_storage
from local.embedded_aws.children import Child
from local.embedded_aws.faults import FAULTS
from local.embedded_aws.host_metrics import HostMetrics
from local.embedded_aws.image_format import parse_reference
from local.embedded_aws.image_store import ExtractedImage, ImageNotFoundError, extract
from local.embedded_aws.registration import log
from local.embedded_aws.role_clients import RoleClients
from local.embedded_aws.settings import settings
from local.embedded_aws.training_job import TrainingJob
from local.embedded_aws.training_log import TrainingLog

TICK_SECONDS = 0.1
REMOVALS = 20
SYNCHRONISE_SECONDS = 1.0
TERM_SECONDS = 120.0
"""Between SIGTERM and SIGKILL, as SageMaker gives a container that it stops."""


class TrainingRun:
    """One job on its thread."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._root = settings().training / job.name
        self._clients = RoleClients(job.request["RoleArn"], "SageMaker")
        self._s3 = self._clients.client("s3")
        self._seconds = 0.0
        cloudwatch = self._clients.client("cloudwatch")
        self._host = HostMetrics(cloudwatch, job.name)
        self._log = TrainingLog(
            self._clients.client("logs"),
            cloudwatch,
            job.name,
            settings().home / "logs/training" / f"{job.name}.log",
            job.metrics,
        )
        address = (job.request.get("CheckpointConfig") or {}).get("S3Uri")
        folder = self._root / "checkpoints"
        self._checkpoints = training_storage.CheckpointFolder(self._s3, address, folder) if address else None

    def run(self) -> None:
        """From Starting to the end; whatever goes wrong ends the job as Failed."""
        job = self._job
        try:
            job.move("InProgress", "Starting", "Preparing the instances for training")
            if self._is_ended_by_a_fault():
                return
            self._log.open()
            while not self._attempt():
                job.interruption_requested.clear()
                job.move("InProgress", "Interrupted", "Spot instance was reclaimed")
                job.move("InProgress", "Starting", "Launching requested ML instances")
        except ClientError as error:
            self._fail(f"ClientError: {refusal(error)}")
        except FailedError as error:
            self._fail(str(error))
        except (
            ImageNotFoundError,
            training_storage.DownloadError,
            training_storage.EmptyPrefixError,
        ) as error:
            self._fail(f"ClientError: {error}")
        except Exception:  # a fault of the emulator ends the job, as SageMaker's own would
            log.exception("training job %s", job.name)
            for line in traceback.format_exc().splitlines():
                self._log.add(line)
            self._fail("InternalServerError: We encountered an internal error. Please try again.")
        finally:
            shutil.rmtree(self._root, ignore_errors=True)
            try:
                self._log.close()
            except ClientError as error:
                log.warning("the last log lines of %s were not stored: %s", job.name, error)

    def _fail(self, reason: str) -> None:
        """On AWS only the description tells; here the log does as well, for whoever looks for the cause there."""
        self._log.add(reason)
        self._job.fail(reason, **self._times())

    def _is_ended_by_a_fault(self) -> bool:
        """Whether a test has set how this job ends, without a training; or how long it waits for its instance."""
        job = self._job
        fault = FAULTS.strike("job", self._occasion)
        if fault is None:
            return False
        if "fail" in fault:
            raise FailedError(fault["fail"])
        if "pending" in fault:
            return self._is_stopped_while_it_waits(fault["pending"])
        if "stop" in fault:
            job.move("Stopped", fault["stop"], "Training job stopped")
        else:
            job.move("Completed", "Completed", "Training job completed")
        return True

    def _occasion(self) -> str:
        return f"{self._job.name} {json.dumps(self._job.request, default=str)}"

    def _is_stopped_while_it_waits(self, seconds: float) -> bool:
        job = self._job
        lacking = "Insufficient capacity error from EC2 while launching instances, retrying!"
        job.move("InProgress", "Pending", lacking)
        if not job.stop_requested.wait(seconds):
            return False
        job.move("Stopping", "Stopping", "Stopping the training job")
        job.move("Stopped", "Stopped", "Training job stopped")
        return True

    def _attempt(self) -> bool:
        """One life of the instance. False when it was interrupted and the job begins again."""
        job, began = self._job, time.time()
        started: dict[str, float] = (
            {} if "TrainingStartTime" in job.describe() else {"TrainingStartTime": began}
        )
        job.move("InProgress", "Downloading", "Downloading input data", **started)
        shutil.rmtree(self._root, ignore_errors=True)
        training_container.write_configuration(self._root, job.request)
        for channel in job.request.get("InputDataConfig") or []:
            address = channel["DataSource"]["S3DataSource"]["S3Uri"]
            training_storage.download_channel(
                self._s3, address, self._root / "input/data" / channel["ChannelName"]
            )
        if self._checkpoints:
            self._checkpoints.restore()
        image = self._pull()
        job.move("InProgress", "Training", "Training image download completed. Training in progress.")
        self._host.publish()
        if fault := FAULTS.strike("container", self._occasion):
            self._wait(fault)
        try:
            status, ending = self._train(image)
        finally:
            self._seconds += time.time() - began
        if ending == "Interrupted" and not job.stop_requested.is_set():
            return False
        self._finish(status, ending)
        return True

    def _wait(self, fault: Mapping[str, Any]) -> None:
        """A container that says nothing, on an instance that runs."""
        for tick in FAULTS.ticks(fault):
            self._host.publish()
            if self._job.stop_requested.wait(tick):
                return

    def _pull(self) -> ExtractedImage | container_run.PulledImage:
        reference = parse_reference(self._job.request["AlgorithmSpecification"]["TrainingImage"])
        if reference is None:
            raise FailedError("ClientError: Cannot pull the training image: it is not in Amazon ECR")
        ecr = self._clients.client("ecr")
        if container_run.is_chosen(os.environ):
            return container_run.pull(ecr, reference, settings().endpoint)
        ecr.get_authorization_token()  # what a pull begins with
        return extract(ecr, reference, settings().endpoint, settings().home / "images")

    def _train(self, image: ExtractedImage | container_run.PulledImage) -> tuple[int, str | None]:
        """Exit status of the process, and why it was ended early: Stopped, MaxRuntimeExceeded or Interrupted."""
        argv, environment = self._launch(image)
        child = Child(argv, environment, self._root, self._log.add)
        try:
            return self._watch(child)
        finally:
            child.kill()
            container_run.remove(self._job.name)
            self._synchronise()

    def _launch(
        self, image: ExtractedImage | container_run.PulledImage
    ) -> tuple[list[str], Mapping[str, str]]:
        """The command and the whole environment of `train`."""
        request = {**self._job.request, "TrainingJobArn": self._job.arn}
        if isinstance(image, container_run.PulledImage):
            variables = training_container.job_variables(request)
            home = settings().kohya_home
            return container_run.command(image, self._job.name, self._root, home, variables), os.environ
        try:
            argv = training_container.command(image)
        except FileNotFoundError as error:
            raise FailedError(f"AlgorithmError: {error}, exit code: 127") from error
        home = settings().kohya_home
        return argv, training_container.environment(request, image, self._root, home, os.environ)

    def _watch(self, child: Child) -> tuple[int, str | None]:
        began = synchronised = time.monotonic()
        ending: str | None = None
        kill_at = math.inf
        while (status := child.wait(TICK_SECONDS)) is None:
            self._host.publish()
            now = time.monotonic()
            if now - synchronised >= SYNCHRONISE_SECONDS:
                self._synchronise()
                synchronised = now
            if ending is None and (ending := self._reason_to_end(now - began)):
                if ending != "Interrupted":
                    self._job.move("Stopping", "Stopping", "Stopping the training job")
                child.terminate()
                kill_at = now + TERM_SECONDS
            if now >= kill_at:
                child.kill()
        return status, ending

    def _reason_to_end(self, seconds: float) -> str | None:
        if self._job.stop_requested.is_set():
            return "Stopped"
        limit = (self._job.request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 86400)
        if self._seconds + seconds >= limit:
            return "MaxRuntimeExceeded"
        return "Interrupted" if self._job.interruption_requested.is_set() else None

    def _synchronise(self) -> None:
        self._log.flush()
        if self._checkpoints:
            self._checkpoints.synchronise()

    def _finish(self, status: int, ending: str | None) -> None:
        job, output = self._job, self._job.request["OutputDataConfig"]
        stopped = ending is not None
        in_progress = "Stopping" if stopped else "InProgress"
        job.move(in_progress, "Uploading", "Uploading generated training model")
        training_storage.upload_folder(self._s3, self._root / "output", "output", output, job.name)
        if status != 0 and not stopped:
            job.fail(training_container.failure_reason(self._root, status), **self._times())
            return
        members = self._times()
        if (
            training_storage.upload_folder(self._s3, self._root / "model", "model", output, job.name)
            or not stopped
        ):
            members["ModelArtifacts"] = {"S3ModelArtifacts": training_storage.model_address(output, job.name)}
        if stopped:
            job.move("Stopped", ending or "Stopped", "Training job stopped", **members)
        else:
            job.move("Completed", "Completed", "Training job completed", **members)

    def _times(self) -> dict[str, Any]:
        """Members that every ended job has; a job that never got its instance was never billed."""
        if not self._seconds:
            return {}
        seconds = math.ceil(self._seconds)
        return {
            "TrainingEndTime": time.time(),
            "TrainingTimeInSeconds": seconds,
            "BillableTimeInSeconds": seconds,
        }


class FailedError(Exception):
    """The job ends as Failed; the message is its FailureReason."""


def refusal(error: ClientError) -> str:
    """What AWS said; a denial names the action."""
    details: Mapping[str, Any] = error.response.get("Error", {})
    return f"{details.get('Message') or details.get('Code')} (calling {error.operation_name})"


def remove_roots() -> None:
    """At shutdown: no training root is left behind."""
    folder: Path = settings().training
    for _ in range(REMOVALS):  # the jobs' own threads may be removing, or still writing, the same files
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(TICK_SECONDS)
