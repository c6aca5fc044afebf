"""One base error, one class a failure. Each carries a plain cause and one remedy, as `output/failure`
needs them.
"""


class TrainingError(Exception):
    """A run cannot succeed; `kind` is the failure's class as operators count it."""

    kind = "unknown"

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy


class InvalidConfigurationError(TrainingError):
    """The configuration, the plan or the inventory cannot be used."""

    kind = "bad-config"


class UnsupportedKohyaVersionError(TrainingError):
    """No option table exists for the image's Kohya version, or its trainer is not where it should be."""

    kind = "unsupported-version"


class MissingGpuError(TrainingError):
    """The real trainer would train on the CPU, for days and at a GPU's price."""

    kind = "gpu-missing"


class DatasetChangedError(TrainingError):
    """A file differs from the one that was inspected, or is missing."""

    kind = "dataset-changed"


class NoDataError(TrainingError):
    """There is nothing to train on."""

    kind = "no-data"


class BaseModelError(TrainingError):
    """The base model is missing or has a form that is not loaded."""

    kind = "base-model"


class CorruptBaseModelError(BaseModelError):
    """A file of the model channel is not whole."""

    kind = "corrupt-base-model"

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "Upload the base model again and check that it is an SDXL .safetensors.")


class UnprovedModelError(TrainingError):
    """The trainer ended, but what it wrote is no usable model."""

    kind = "model-unproved"


class InterruptedTrainingError(TrainingError):
    """SIGTERM or SIGINT arrived before the trainer was started."""

    kind = "interrupted"


class TrainerFailedError(TrainingError):
    """The trainer's process ended without a model; `kind` is what its output was classified as."""

    def __init__(self, kind: str, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.kind = kind
