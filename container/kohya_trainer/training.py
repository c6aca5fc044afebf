"""One training job, from SageMaker's folders to a proved model or an explained failure."""

import shutil
import signal
import time
import traceback
from collections.abc import Mapping
from types import FrameType

from kohya_trainer import orders
from kohya_trainer.command import launch_arguments, network_variables
from kohya_trainer.delivery import deliver
from kohya_trainer.environment import Environment, read_environment, read_folders
from kohya_trainer.errors import InterruptedTrainingError, TrainingError, UnprovedModelError
from kohya_trainer.execution import executed
from kohya_trainer.failure import DISK_FULL, STALLED, classify, interrupted, own_failure
from kohya_trainer.failure_file import write_failure
from kohya_trainer.full_disk import full_disk
from kohya_trainer.job import read_job
from kohya_trainer.launch import Ended, run_trainer
from kohya_trainer.log import Log
from kohya_trainer.model_proof import prove
from kohya_trainer.provenance import Trained, gather_facts
from kohya_trainer.run_so_far import find_run_so_far
from kohya_trainer.trainer_files import write_trainer_files
from kohya_trainer.watch import TrainingWatch

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TRACEBACK_LINES = 20


def main(variables: Mapping[str, str]) -> int:
    """The exit code: 0 only with a proved model, else output/failure says why."""
    log = Log()
    _raise_on_signals()
    folders = read_folders(variables)
    try:
        try:
            train(read_environment(variables), variables, log)
            return 0
        finally:
            # Nothing may cut short what tells of the end.
            _ignore_signals()
    except TrainingError as error:
        failure = error
    except Exception as error:
        log.say(traceback.format_exc())
        # The failure file has room for these beside what was said before.
        log.lines.extend(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
        failure = own_failure(error)
    if failure.kind == DISK_FULL:
        failure = full_disk(folders)
        # The failure file may lie on the same disk; nothing that a restart needs is in `work`.
        shutil.rmtree(folders.work, ignore_errors=True)
    log.say(f"failure class={failure.kind}\n{failure.cause}\nRemedy: {failure.remedy}")
    write_failure(folders.failure, failure, log.lines)
    return 1


def train(environment: Environment, variables: Mapping[str, str], log: Log) -> None:
    """Raises TrainingError when there is no proved model at the end."""
    began = time.time()
    machine = environment.machine
    job = read_job(environment, log)
    so_far = find_run_so_far(job, log)
    # The hooks keep latents; where there are none, the trainer would write them beside the images for nothing.
    images = job.dataset.images if environment.hooked else 0
    execution = executed(job.options, job.inputs, job.table, machine, variables, images)
    for line in execution.lines:
        log.note(line)
    files = write_trainer_files(job, so_far, execution.options, log)

    watch = TrainingWatch(
        files.options,
        files.output,
        so_far,
        files.orders,
        environment.stall_seconds,
        job.inputs.private,
        machine.rank > 0,
        log.say,
    )
    arguments = launch_arguments(job.script, files.config, files.options, machine)
    log.note(f"launching {' '.join(arguments)}")
    launched = {**variables, **network_variables(machine), **job.base_model.variables, **execution.variables}
    if files.orders:
        launched[orders.VARIABLE] = str(files.orders_file)
    try:
        ended = run_trainer(arguments, job.script.parent, launched, watch)
        watch.close()
    finally:
        log.lines = watch.lines or log.lines
    written = files.output / f"{job.output_name}.safetensors"
    if watch.stopped_early and watch.best:
        shutil.copyfile(watch.best.path, written)
    # Of several hosts the first one alone writes models.
    shortfall = _shortfall(ended, watch, machine.rank > 0 or written.is_file())
    if shortfall and not (watch.made_all_steps() and written.is_file()):
        raise shortfall
    if machine.rank > 0:
        log.note("trained; the first host proves and delivers the model")
        return

    # What is left takes seconds, and a restart would make steps again for it.
    _ignore_signals()
    if not written.is_file():
        raise classify(ended.code, watch.lines)
    try:
        model = prove(written, files.options)
    except UnprovedModelError as error:
        raise shortfall or error from error
    if shortfall:
        log.note(f"note: the training was over when this happened: {shortfall.cause}")
    _check_steps(watch)
    trained = Trained(
        model, watch.step, watch.loss, so_far.done or None, watch.best, watch.stopped_early, ended.seconds
    )
    facts = gather_facts(job, job.table.resolved(files.options), trained, began)
    deliver(written, files.options, job, so_far, watch.best, facts)
    log.note(f"proved {written.name}: {model.tensors} tensors, rank {model.rank}, norm {model.up_norm:.4g}")


def _shortfall(ended: Ended, watch: TrainingWatch, has_model: bool) -> TrainingError | None:
    """What ended the training before its end; None where nothing did. A process that crashes or hangs once all steps
    are made and the model is written, as in the libraries that part several GPUs, leaves a model that is still proved.

    Raises TrainerFailedError where the loss broke, whenever that was.
    """
    if watch.error and watch.error.kind != STALLED:
        raise watch.error
    if watch.error:
        return watch.error
    is_over = ended.code == 0 or watch.stopped_early
    if ended.interrupted and not (is_over and has_model):
        return interrupted(watch.step, watch.kept)
    return None if is_over else classify(ended.code, watch.lines)


def _check_steps(watch: TrainingWatch) -> None:
    """A model of fewer steps than announced, or of more, is not the one that was asked for."""
    if watch.total and watch.step != watch.total and not watch.stopped_early:
        raise UnprovedModelError(
            f"The trainer stopped after step {watch.step} of {watch.total}.",
            "Read the last log lines and start the run again.",
        )


def _raise_on_signals() -> None:
    """While inputs are read and checked; the trainer's launch puts its own handlers in their place."""

    def stop(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise InterruptedTrainingError(
            "The job was interrupted outside the training itself.",
            "Start it again with the same checkpoints.",
        )

    for number in SIGNALS:
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
