"""Why a run failed, in one plain sentence with one remedy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kohya_trainer.divergence import RULE
from kohya_trainer.errors import TrainerFailedError, TrainingError

# The line that names a broken image comes before two tracebacks, the trainer's and its launcher's.
LINES_CLASSIFIED = 200
FILES_NAMED = 4
SIGKILL_CODES = (-9, 137)
DISK_FULL = "disk-full"
STALLED = "stalled"
_NOT_FINITE = "Lower learning_rate, or use mixed_precision = bf16 and no_half_vae = true."


@dataclass(frozen=True)
class FailureClass:
    """`pattern` is looked for in the trainer's last lines; its first group, if any, fills `{detail}`."""

    kind: str
    pattern: str
    cause: str
    remedy: str


# In the order in which they are tried: what names the reason comes before what merely follows from it.
CLASSES = (
    FailureClass(
        "out-of-gpu-memory",
        r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory",
        "The GPU ran out of memory.",
        "Halve train_batch_size, set gradient_checkpointing = true, or choose a larger GPU.",
    ),
    FailureClass(
        "out-of-host-memory",
        r"DefaultCPUAllocator: can't allocate memory|^MemoryError|Cannot allocate memory"
        r"|numpy\S*_ArrayMemoryError|Signals\.SIGKILL|exitcode\s*: -9"
        # What the workers of a data loader share lies in memory, though Linux calls it a device.
        r"|unable to write to file </torch_",
        "The machine ran out of memory.",
        "Lower max_data_loader_n_workers or choose an instance with more memory.",
    ),
    FailureClass(
        DISK_FULL,
        # Torch names the reason of a write that failed nowhere.
        r"No space left on device|Disk quota exceeded"
        r"|PytorchStreamWriter failed writing|inline_container\S* \. unexpected pos \d+ vs \d+",
        # full_disk.py says which one.
        "A disk is full.",
        "Save fewer states and models.",
    ),
    FailureClass(
        "corrupt-image",
        r"(?:cannot identify image file|Error loading file:|(?:error loading|failed to load) image:?) ['\"]?"
        r"(?P<detail>[^'\"\n]+?)(?:['\"]| {2}|$)"
        r"|image file is truncated|broken data stream|DecompressionBombError",
        "An image cannot be read{detail}.",
        "Replace that image and drop the dataset again.",
    ),
    FailureClass(
        "base-model",
        r"GatedRepoError|RepositoryNotFoundError|RevisionNotFoundError|(?<!Local)EntryNotFoundError|401 Client Error"
        r"|403 Client Error|is not a local folder and is not a valid model identifier"
        r"|model is not found as a file",
        "The base model cannot be loaded: it does not exist or is gated.",
        "Check its name, or put the model under models/ in the bucket and name it as base_model.",
    ),
    FailureClass(
        "corrupt-base-model",
        r"SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer|Error\(s\) in loading state_dict",
        "A weights file is damaged or is not of SDXL.",
        "Upload the base model again and check that it is an SDXL checkpoint in .safetensors.",
    ),
    FailureClass(
        "no-network",
        r"Name or service not known|Temporary failure in name resolution|Max retries exceeded|ConnectTimeout"
        r"|NewConnectionError|LocalEntryNotFoundError|couldn't connect to 'https|OfflineModeIsEnabled",
        "The model hub cannot be reached.",
        "Put the base model under models/ in the bucket, name it as base_model, or give the job a network.",
    ),
    FailureClass(
        "no-data",
        r"No data found",
        "The trainer found no images.",
        "Put the images into a folder named <repeats>_<words>, such as 10_sks cat.",
    ),
    FailureClass(
        "not-finite",
        r"NaN detected|loss is nan",
        "The loss stopped being a number.",
        _NOT_FINITE,
    ),
    FailureClass(
        "gpu-fault",
        r"no CUDA-capable device|Found no NVIDIA driver|CUDA driver version is insufficient|uncorrectable ECC"
        r"|illegal memory access|NCCL error",
        "The GPU or its driver failed.",
        "Start the run again; if it fails again, choose another instance type.",
    ),
    FailureClass(
        "bad-config",
        r"(?:error: (?:argument|unrecognized|the following))"
        r"|(?P<detail>AssertionError: [^\n]{0,200}"
        r"|(?:__init__|get_\w*schedule\w*)\(\) got (?:an unexpected|multiple values for) keyword argument [^\n]{0,100})"
        r"|invalid literal for|should be greater than initial step|TomlDecodeError",
        "Kohya refuses the configuration{detail}.",
        "Correct the option that the log lines name.",
    ),
    FailureClass(
        "out-of-host-memory",
        # Whatever such a process raises itself is told in its own words, and found above.
        r"DataLoader worker \(pid\S* [\d, ]+\) (?:exited unexpectedly|is killed by signal: (?:Killed|Bus error))",
        "A process that loads pictures was killed, most likely because the machine ran out of memory.",
        "Lower max_data_loader_n_workers or choose an instance with more memory.",
    ),
)


def diverged(
    step: int, loss: float, files: Sequence[str] = (), more: int = 0, kept: int | None = None
) -> TrainerFailedError:
    """The watch saw a loss that is not finite; `files` and `more` of them were its batch, `kept` is the step of the
    newest state.
    """
    return TrainerFailedError(
        "not-finite",
        f"The loss stopped being a number ({loss}) at step {step}{_batch(files, more)}.{_kept(kept)}",
        _NOT_FINITE,
    )


def diverged_in_validation(step: int, loss: float, kept: int | None) -> TrainerFailedError:
    """The weights are broken, although each step's loss was finite: the next one's would not be."""
    return TrainerFailedError(
        "not-finite",
        f"The loss of the validation stopped being a number ({loss}) after step {step}.{_kept(kept)}",
        _NOT_FINITE,
    )


def diverging(
    step: int, loss: float, files: Sequence[str], more: int, kept: int | None
) -> TrainerFailedError:
    """The watch saw a loss that grows by its rule."""
    return TrainerFailedError(
        "diverging",
        f"The loss grows instead of falling: {loss:.3g} at step {step}{_batch(files, more)}; {RULE}.{_kept(kept)}",
        "Lower learning_rate to a third.",
    )


def stalled(step: int, seconds: float, gpu: str) -> TrainerFailedError:
    """The trainer has been silent for so long; `gpu` is what nvidia-smi says."""
    return TrainerFailedError(
        STALLED,
        f"The trainer wrote nothing for {seconds:.0f} seconds after step {step} ({gpu or 'no GPU seen'}).",
        "Start the run again with the same checkpoints; if it stalls again, choose another instance type.",
    )


def interrupted(step: int, kept: int | None = None) -> TrainerFailedError:
    """SageMaker, or a person, ended the job."""
    return TrainerFailedError(
        "interrupted",
        f"The training was interrupted after step {step}.{_kept(kept)}",
        "Start it again with the same checkpoints to go on from the last saved state.",
    )


def classify(code: int, lines: Sequence[str]) -> TrainerFailedError:
    """The error for a trainer that ended with `code` and without a model, by its last lines."""
    if known := _known("\n".join(lines)):
        return known
    if code in SIGKILL_CODES:
        return TrainerFailedError(
            "out-of-host-memory",
            "The trainer was killed, most likely because the machine ran out of memory.",
            "Lower max_data_loader_n_workers or choose an instance with more memory.",
        )
    if code != 0:
        last = next(
            (line for line in reversed(lines) if re.match(r"\s*[\w.]*(?:Error|Exception)\b", line)), ""
        )
        return TrainerFailedError(
            "trainer-crash",
            f"The trainer ended with exit code {code}{f' ({_short(last.strip())})' if last else ''}.",
            "Read the last log lines; correct the option or file that they name.",
        )
    return TrainerFailedError(
        "unknown",
        "The trainer ended without an error and without a model.",
        "Read the last log lines and report them if they do not explain it.",
    )


def own_failure(error: Exception) -> TrainingError:
    """A fault of this package must be told as plainly as any other, or SageMaker shows nothing but a code."""
    # A full disk meets whoever writes next.
    known = _known(str(error)) if isinstance(error, OSError) else None
    return known or TrainingError(
        f"The training container itself failed ({_short(f'{type(error).__name__}: {error}')}).",
        "Start the run again; if it fails again, report the last lines.",
    )


def _known(text: str) -> TrainerFailedError | None:
    for known in CLASSES:
        if match := re.search(known.pattern, text, re.MULTILINE):
            detail = match.groupdict().get("detail")
            cause = known.cause.format(detail=f" ({_short(detail)})" if detail else "")
            return TrainerFailedError(known.kind, cause, known.remedy)
    return None


def _batch(files: Sequence[str], more: int) -> str:
    others = f" and {more} more" if more else ""
    return f", in the batch of {', '.join(files)}{others}" if files else ""


def _kept(step: int | None) -> str:
    return "" if step is None else f" The state after step {step} is kept."


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
