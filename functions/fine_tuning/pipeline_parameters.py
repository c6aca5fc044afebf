"""What the SageMaker pipeline is started with, on each rung that a run may be trained on."""

from __future__ import annotations

from typing import Any

from fine_tuning.ladder import Rung
from fine_tuning.limits import Limits
from fine_tuning.plan import Decision
from fine_tuning.run import Run


def ladder_of(run: Run, decision: Decision, limits: Limits) -> list[dict[str, Any]]:
    """The rungs as the flow holds them, each with the pipeline's parameters of its own."""
    return [
        {**rung.as_document(), "pipeline_parameters": pipeline_parameters(run, decision, limits, rung)}
        for rung in decision.rungs
    ]


def pipeline_parameters(run: Run, decision: Decision, limits: Limits, rung: Rung) -> list[dict[str, str]]:
    """The SageMaker pipeline's parameters, all strings as its API has them.

    The image is added by the flow.
    """
    model = decision.base_model
    inputs = run.uri(f"{run.prefix}input/")
    own_model = model.uri if model and model.kind == "channel" else None
    values = {
        "InputS3DatasetLocation": run.uri(run.dataset_prefix),
        "InputS3ConfigurationLocation": inputs,
        # The very file: its folder may hold others, and what is downloaded is waited for on billed time. A
        # channel over an empty prefix is refused, so without a base model of its own it shows the run's
        # inputs.
        "InputS3ModelLocation": own_model or inputs,
        "OutputS3ModelLocation": run.uri(f"{run.prefix}output/"),
        "CheckpointS3Location": run.uri(run.checkpoint_prefix),
        "TrainingInstanceType": rung.instance_type,
        "TrainingVolumeSizeInGB": limits.volume_gb,
        "MaxTrainingRuntimeInSeconds": rung.max_runtime_seconds,
        "TrainingMode": "spot" if rung.spot else "on-demand",
        "RunId": run.run_id,
        # With the base model in a channel and the tokenizers in the image nothing is left to be fetched.
        "NetworkIsolation": own_model is not None,
    }
    if rung.spot:
        values["MaxWaitTimeInSeconds"] = 2 * rung.max_runtime_seconds
    return [{"Name": name, "Value": str(value)} for name, value in values.items()]
