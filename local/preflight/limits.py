"""What a stack allows that is deployed with the template's own defaults."""

from pathlib import Path
from typing import Any

import yaml

from fine_tuning.limits import Limits

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


class _Template(yaml.SafeLoader):
    """Reads over CloudFormation's short functions: only parameters are asked for."""


_Template.add_multi_constructor("!", lambda loader, suffix, node: None)


def of_template() -> Limits:
    parameters: dict[str, Any] = yaml.load(TEMPLATE.read_bytes(), Loader=_Template)["Parameters"]
    default = {name: parameter.get("Default", "") for name, parameter in parameters.items()}
    return Limits(
        kohya_version=default["KohyaVersion"],
        instance_types=tuple(name.strip() for name in default["InstanceTypes"].split(",")),
        volume_gb=int(default["TrainingVolumeSizeInGB"]),
        max_runtime_seconds=int(default["MaxTrainingRuntimeInSeconds"]),
        max_cost_usd=float(default["MaxCostUsd"]) if default["MaxCostUsd"] else None,
    )
