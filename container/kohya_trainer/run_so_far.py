"""What earlier launches of a run left in its checkpoints; this one goes on there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kohya_trainer.checkpoints import Checkpoint, CheckpointStore, fingerprint
from kohya_trainer.job import Job
from kohya_trainer.log import Log
from kohya_trainer.loss_history import VALIDATION_NAME, LossHistory
from kohya_trainer.resume import Loop, ResumePoint, can_resume, resume_point


@dataclass(frozen=True)
class RunSoFar:
    """`resume` is None where the run begins at its first step; the histories end at that of `resume`. `listed` are the
    results that belong to its state: path below `results` → sha256.
    """

    store: CheckpointStore
    resume: ResumePoint | None
    history: LossHistory
    validations: LossHistory
    listed: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Survives an interruption on the first host."""
        return self.history.path.parent

    @property
    def results(self) -> Path:
        """Samples and models that were made up to the newest state."""
        return self.folder / "results"

    @property
    def done(self) -> int:
        """Steps that need not be made again."""
        return self.resume.done if self.resume else 0


def find_run_so_far(job: Job, log: Log) -> RunSoFar:
    """Says in the log what it goes on from, and why not from what else lies there."""
    folders, machine = job.environment.folders, job.environment.machine
    store = CheckpointStore(
        folders.checkpoints, fingerprint(job.inputs.config, job.dataset.digest, machine.processes)
    )
    checkpoint, resume = _resume_point(store, job, log)
    done = resume.done if resume else 0
    # SageMaker copies the checkpoints of all hosts to one place, where only the first one's belong.
    first = machine.rank == 0
    kept = folders.checkpoints if first else folders.work
    listed = checkpoint.results if checkpoint and first else {}
    histories = LossHistory(kept, done), LossHistory(kept, done, VALIDATION_NAME)
    return RunSoFar(store, resume, *histories, listed)


def _resume_point(
    store: CheckpointStore, job: Job, log: Log
) -> tuple[Checkpoint, ResumePoint] | tuple[None, None]:
    mine, others = store.found()
    if others:
        log.note("note: the checkpoints hold a state of other options, another dataset or number of GPUs")
    for checkpoint in mine:
        if not can_resume(job.table):
            log.note(
                f"note: Kohya {job.table.version} cannot continue with the right step count; starting again"
            )
            return None, None
        accumulation = int(job.options.get("gradient_accumulation_steps", 1))
        loop = Loop(checkpoint.batches_per_epoch, accumulation, checkpoint.total)
        if point := resume_point(checkpoint.state, checkpoint.step, loop, job.environment.hooked):
            log.note(f"resuming after step {point.done} of {loop.total}")
            return checkpoint, point
        log.note(f"note: the trainer cannot do exactly the steps missing after step {checkpoint.step}")
    return None, None
