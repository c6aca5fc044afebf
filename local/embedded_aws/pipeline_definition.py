"""SageMaker pipeline definitions, version 2020-12-01: reading, refusing, binding parameters, resolving references.

Pure: JSON in, data out. Source: the SageMaker developer guide's pipeline definition and what the SDK renders.
"""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.embedded_aws.request_validation import RequestError

Step = dict[str, Any]
PARAMETER_TYPES: dict[str, Callable[[str], object]] = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": lambda text: {"true": True, "false": False}[text.lower()],
}
STEP_TYPES = ("Training", "Condition", "Fail")
EXECUTION_VARIABLES = (
    "CurrentDateTime",
    "PipelineArn",
    "PipelineExecutionArn",
    "PipelineExecutionId",
    "PipelineName",
    "StartDateTime",
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


@dataclass(frozen=True)
class Definition:
    """`steps` holds all steps by name, those inside the branches of Condition steps as well; `outer` the names of the
    others, in the order of the definition."""

    parameters: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Step]
    outer: Sequence[str]


@dataclass
class Values:
    """What references in a definition stand for while an execution runs.

    Attributes:
        parameters: by name, converted to the parameter's type.
        execution: EXECUTION_VARIABLES.
        steps: properties of finished steps by name, as DescribeTrainingJob returns them.
    """

    parameters: Mapping[str, object]
    execution: Mapping[str, str]
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def resolve(self, value: Any) -> Any:
        """`value` with each `{"Get": …}` and `{"Std:Join": …}` in it replaced."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"])
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return join["On"].join(str(part) for part in self.resolve(join["Values"]))
        return {key: self.resolve(item) for key, item in value.items()}

    def _get(self, reference: str) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters":
            return self.parameters[rest]
        if kind == "Execution":
            return self.execution[rest]
        name, _, path = rest.partition(".")
        found: Any = self.steps.get(name)
        for part in path.replace("['", ".").replace("']", "").replace("[", ".").replace("]", "").split("."):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise RequestError(
                    "ValidationException", f"Unable to resolve property reference {reference}"
                ) from error
        return found


def parse(text: str) -> Definition:
    """Raise RequestError unless SageMaker would take the definition."""
    try:
        body = json.loads(text)
        parameters = {parameter["Name"]: parameter for parameter in body.get("Parameters", [])}
        outer = [step["Name"] for step in body["Steps"]]
        steps = list(_walk(body["Steps"]))
        names = [step["Name"] for step in steps]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(f"the definition cannot be read ({type(error).__name__}: {error})") from error
    if body.get("Version") != "2020-12-01":
        raise _refused(f"Version must be 2020-12-01, not {body.get('Version')}")
    if not steps:
        raise _refused("the pipeline has no steps")
    for name in {name for name in names if names.count(name) > 1}:
        raise _refused(f"step name {name} is used more than once")
    for parameter in parameters.values():
        if parameter.get("Type") not in PARAMETER_TYPES:
            raise _refused(f"parameter {parameter['Name']} has the unknown type {parameter.get('Type')}")
    for step in steps:
        _check_step(step, parameters, names)
    return Definition(parameters, {step["Name"]: step for step in steps}, outer)


def branches(step: Step) -> list[Step]:
    """The steps inside a Condition step."""
    arguments = step.get("Arguments") or {}
    return [*(arguments.get("IfSteps") or []), *(arguments.get("ElseSteps") or [])]


def _walk(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            inner = branches(step)
            if any(nested["Type"] == "Condition" for nested in inner):
                raise _refused(f"Condition step {step['Name']} holds another Condition step")
            yield from inner


def _check_step(step: Step, parameters: Mapping[str, object], names: Sequence[str]) -> None:
    name = step["Name"]
    if step.get("Type") not in STEP_TYPES:
        raise RequestError("ValidationException", f"Step type {step.get('Type')} of {name} is not emulated")
    for needed in step.get("DependsOn") or []:
        if needed not in names:
            raise _refused(f"step {name} depends on {needed}, which does not exist")
    for reference in references(step):
        kind, _, rest = reference.partition(".")
        known = {
            "Parameters": rest in parameters,
            "Execution": rest in EXECUTION_VARIABLES,
            "Steps": rest.partition(".")[0] in names,
        }
        if not known.get(kind, False):
            raise _refused(f"step {name} refers to {reference}, which does not exist")
    if step["Type"] == "Condition" and not (step.get("Arguments") or {}).get("Conditions"):
        raise _refused(f"Condition step {name} has no conditions")


def references(value: Any) -> Iterator[str]:
    """Every `Get` within `value`."""
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            yield value["Get"]
        else:
            for item in value.values():
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def needed_steps(step: Step) -> set[str]:
    """Names of the steps that must have succeeded before this one: DependsOn, and those whose properties it reads."""
    own = {inner["Name"] for inner in branches(step)}
    read = {reference.split(".")[1] for reference in references(step) if reference.startswith("Steps.")}
    inner_needs = {needed for inner in branches(step) for needed in inner.get("DependsOn") or []}
    return (set(step.get("DependsOn") or []) | read | inner_needs) - own - {step["Name"]}


def bind(definition: Definition, given: Iterable[Mapping[str, str]]) -> dict[str, object]:
    """Parameter values by name: `given` ({"Name", "Value"}, always strings in the API) over the defaults.

    Raises RequestError for an unknown name, a value that is not of the parameter's type or enumeration, and
    a missing one.
    """
    values = {
        name: item["DefaultValue"] for name, item in definition.parameters.items() if "DefaultValue" in item
    }
    for item in given:
        name, text = item["Name"], item["Value"]
        if name not in definition.parameters:
            raise RequestError(
                "ValidationException", f"Parameter [{name}] is not defined in the pipeline definition."
            )
        kind = definition.parameters[name]["Type"]
        try:
            values[name] = PARAMETER_TYPES[kind](text)
        except (ValueError, KeyError) as error:
            raise RequestError(
                "ValidationException", f"Parameter [{name}] value [{text}] is not of type {kind}."
            ) from error
    for name, parameter in definition.parameters.items():
        if name not in values:
            raise RequestError("ValidationException", f"Parameter [{name}] has no value and no default.")
        allowed = parameter.get("EnumValues")
        if allowed and values[name] not in allowed:
            raise RequestError(
                "ValidationException", f"Parameter [{name}] value [{values[name]}] is not one of {allowed}."
            )
    return values


def holds(condition: Mapping[str, Any], resolve: Callable[[Any], Any]) -> bool:
    """Whether one condition of a Condition step is true."""
    kind = condition["Type"]
    if kind == "Not":
        return not holds(condition["Expression"], resolve)
    if kind == "Or":
        return any(holds(inner, resolve) for inner in condition["Conditions"])
    if kind == "In":
        return resolve(condition["QueryValue"]) in resolve(condition["Values"])
    if kind not in _COMPARISONS:
        raise RequestError("ValidationException", f"Condition type {kind} does not exist")
    left, right = resolve(condition["LeftValue"]), resolve(condition["RightValue"])
    if isinstance(left, str) != isinstance(right, str):
        raise RequestError("ValidationException", f"{kind} cannot compare {left!r} with {right!r}")
    return _COMPARISONS[kind](left, right)


def _refused(reason: str) -> RequestError:
    return RequestError("ValidationException", f"Unable to parse pipeline definition. {reason}")
