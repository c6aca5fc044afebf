"""ECR's life-cycle policies: which images they expire. Pure; the rules are those of ECR's user guide, "Lifecycle policy
properties" and "How lifecycle policies work".

ECR acts on a policy within a day of its reason; ecr_layers.py does so at each push.
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS_OF_A_DAY = 86400


class LifecycleError(Exception):
    """The policy is none that is emulated; the message says why."""


@dataclass(frozen=True)
class Image:
    """`pushed_at` in seconds; another tag for an image that is there already does not change it."""

    digest: str
    tags: Sequence[str]
    pushed_at: float


def read_policy(text: str) -> list[dict[str, Any]]:
    """The rules by priority. Raises LifecycleError."""
    try:
        rules: list[dict[str, Any]] = sorted(json.loads(text)["rules"], key=lambda rule: rule["rulePriority"])
        for rule in rules:
            _check(rule)
    except (ValueError, KeyError, TypeError) as error:
        raise LifecycleError(f"a life-cycle policy cannot be read: {error!r}") from error
    if len({rule["rulePriority"] for rule in rules}) != len(rules):
        raise LifecycleError("two rules of a life-cycle policy have the same rulePriority")
    return rules


def _check(rule: Mapping[str, Any]) -> None:
    unknown = set(rule) - {"rulePriority", "description", "selection", "action"}
    selection = rule["selection"]
    tagged = selection["tagStatus"] == "tagged"
    by_age = selection["countType"] == "sinceImagePushed"
    wanted = {"tagStatus", "countType", "countNumber"}
    wanted |= {"tagPatternList"} if tagged else set()
    wanted |= {"countUnit"} if by_age else set()
    if unknown or set(selection) != wanted or rule["action"] != {"type": "expire"}:
        raise LifecycleError(f"this rule of a life-cycle policy is not emulated, or is none: {rule}")
    if selection["tagStatus"] not in ("tagged", "untagged", "any"):
        raise LifecycleError(f"tagStatus {selection['tagStatus']} is none")
    if not by_age and selection["countType"] != "imageCountMoreThan":
        raise LifecycleError(f"countType {selection['countType']} is not emulated")
    if by_age and selection["countUnit"] != "days":
        raise LifecycleError(f"countUnit {selection['countUnit']} is none")
    if int(selection["countNumber"]) < 1:
        raise LifecycleError("countNumber must be at least 1")


def expired(rules: Sequence[Mapping[str, Any]], images: Sequence[Image], now: float) -> set[str]:
    """The digests of what goes. `images`: in the order of their push.

    All rules see all images; a tagged image that a rule selects is out of reach of every later rule.
    """
    gone: set[str] = set()
    claimed: set[str] = set()
    for rule in rules:
        selection = rule["selection"]
        selected = [image for image in images if _selects(selection, image)]
        for image in _beyond(selection, selected, now):
            if image.digest not in claimed:
                gone.add(image.digest)
        claimed |= {image.digest for image in selected}
    return gone


def _selects(selection: Mapping[str, Any], image: Image) -> bool:
    match selection["tagStatus"]:
        case "tagged":
            patterns = selection["tagPatternList"]
            return bool(image.tags) and all(fnmatch.filter(image.tags, pattern) for pattern in patterns)
        case "untagged":
            return not image.tags
        case _:
            return True


def _beyond(selection: Mapping[str, Any], images: Sequence[Image], now: float) -> Sequence[Image]:
    number = int(selection["countNumber"])
    if selection["countType"] == "imageCountMoreThan":
        # sorted is stable: of two pushes in the same second the later one is the younger.
        return sorted(images, key=lambda image: image.pushed_at)[:-number]
    return [image for image in images if now - image.pushed_at > number * SECONDS_OF_A_DAY]
