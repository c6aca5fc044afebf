"""What an interruption of spot capacity costs a run that the trainer cannot go on with where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fine_tuning import options
from fine_tuning.findings import Finding, warning
from fine_tuning.run import MANIFEST_NAME


def judge(values: Mapping[str, Any], kohya_version: str, spot: bool) -> list[Finding]:
    """Findings of a run that asks for spot capacity. `values` are its options.

    Elsewhere ten minutes are lost at most: the container saves states between any two steps (docs/contracts.md).
    """
    if not spot:
        return []
    if options.is_older(kohya_version):
        message = f"Kohya {kohya_version} cannot go on after an interruption: the run begins anew each time."
        remedy = "Leave out spot, or deploy the application with KohyaVersion=v25.2.2."
    elif values.get("gradient_accumulation_steps", 1) > 1:
        message = (
            "With gradient_accumulation_steps a run goes on from the end of an epoch only: an interruption loses up "
            "to a whole epoch."
        )
        remedy = "Leave out spot, or raise train_batch_size in place of gradient_accumulation_steps."
    else:
        return []
    return [warning("spot-loses-steps", MANIFEST_NAME, message, remedy)]
