"""While a run is on its way: waiting, started, progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fine_tuning.attempts import Ended, in_words
from fine_tuning.findings import Finding, in_order
from fine_tuning.messages.dataset import listed
from fine_tuning.messages.image import PUSH
from fine_tuning.messages.message import Message, Paragraph, counted, duration, known, money, of_run
from fine_tuning.run import Run
from fine_tuning.service_limit import service_limit

_MOST_WARNINGS = 10
_MOST_OF_A_CODE = 3
# reason → what is so, what is waited for, what a person may do about it.
_WAITS = {
    "capacity": ("AWS has no {instance} to give at the moment.", "a GPU", ""),
    "quota": ("Your account's quota for {instance} is used up, or zero.", "a quota", ""),
    "quota-in-use": (
        "Other jobs of your account use a whole quota. It is tried again, on its last instance type for two days.",
        "other jobs",
        "",
    ),
    "sagemaker": (
        "SageMaker failed by itself; what was trained is continued from its last checkpoint.",
        "SageMaker",
        "",
    ),
    "slot": ("As many runs as this stack allows are under way.", "its turn", ""),
    "image": ("The training image is being built.", "the training image", ""),
    "build-quota": (
        (
            "Other builds use your account's quota of AWS CodeBuild, 'Concurrently running builds for Linux/Large "
            "environment'. The training image is built when one of them has ended; it waits for three hours in all."
        ),
        "other builds",
        "",
    ),
    "source": (
        "There is no training image yet, and no source to build one.",
        "the training image's source",
        PUSH,
    ),
    "upload": (
        "Its upload is not complete.",
        "its files",
        "Upload what is missing; nothing needs to be dropped again.",
    ),
}
_OWN_RUNS = (
    "If the other jobs are runs of this stack: with MaxRunsInFlight at your quota the next one starts the moment that "
    "one ends."
)


def waiting(run: Run, facts: Mapping[str, Any]) -> Message:
    """A run that could not go on at once.

    `facts`: `{"reason": "capacity"|"quota"|"quota-in-use"|"sagemaker"|"slot"|"image"|"build-quota"|"source"|
    "upload",
    "instance_type"?, "spot"?, "detail"?, "retry_in_seconds"?, "position"?}`.
    """
    reason, instance_type = str(facts["reason"]), facts.get("instance_type")
    instance = f"{instance_type or 'the instance'}{_capacity(facts.get('spot'))}"
    what, waited_for, remedy = _WAITS.get(reason, ("It cannot go on yet.", reason, ""))
    if reason == "quota" and (limit := service_limit(f"ResourceLimitExceeded {facts.get('detail')}", facts)):
        remedy = limit.remedy
    position, again = facts.get("position"), facts.get("retry_in_seconds")
    paragraphs: list[Paragraph] = [
        [f"The run of {run.dataset} waits.", what.format(instance=instance)],
        [str(facts["detail"])] if facts.get("detail") else [],
        [
            *([f"Place in the queue: {position}"] if position is not None else []),
            *([f"Tried again: in {duration(again)}"] if again is not None else []),
            f"Run: {run.run_id}",
        ],
        *_to_do(reason, remedy, run),
        [_OWN_RUNS] if reason == "quota-in-use" else [],
        ["To give it up:", f"./dev stop {run.run_id}"],
    ]
    return of_run(
        "waiting",
        f"WAITING_FOR_{reason.replace('-', '_').upper()}",
        run,
        f"Waiting: {run.dataset} for {waited_for}",
        paragraphs,
        needs_action=bool(remedy),
        # One mail a reason and rung, however often it is tried.
        occasion=f"{reason} {instance}" if instance_type else reason,
        instance_type=instance_type,
    )


def _to_do(reason: str, remedy: str, run: Run) -> list[Paragraph]:
    if reason == "source":
        return [
            ["What to do: in a clone of this project, push the image's source; the push builds it:", remedy],
            [
                "If the upload is over before that, the run ends. Then run it again:",
                f"./dev retry {run.run_id}",
            ],
        ]
    return [[f"What to do: {remedy}" if remedy else "Nothing to do: it goes on by itself."]]


def started(
    run: Run, facts: Mapping[str, Any], report: Mapping[str, Any], tried: Sequence[Ended] = ()
) -> Message:
    """With the warnings: a misspelt option that trains at its default is seen before the GPU is paid for.

    `facts`: `{"plan", "images"?, "rung"?: {"number", "of"}, "latents"?: {"images", "of", "runs"}}`; the plan's
    instance is the rung's. `tried`: the attempts before, which made no model.
    """
    plan, rung = facts["plan"], facts.get("rung")
    findings = in_order(Finding.from_document(document) for document in report["findings"])
    warnings = [finding for finding in findings if finding.severity == "warning"]
    instance = f"{plan['instance_type']}{_capacity(plan['spot'])}"
    ladder = f", rung {rung['number']} of {rung['of']}" if rung else ""
    base_model = str(report["plan"]["base_model"])
    is_address = base_model.startswith("s3://")
    paragraphs: list[Paragraph] = [
        [f"The dataset {run.dataset} was accepted and its training is starting."],
        [
            *([f"Images: {facts['images']}"] if "images" in facts else []),
            *([f"Base model: {base_model}"] if not is_address else []),
            f"Steps: {plan['total_steps']}",
            f"Instance: {instance}{ladder}",
            *([f"{in_words(tried)} {tried[-1].reason}"] if tried else []),
            f"Quote: {duration(plan['estimated_seconds'])}, {money(plan['estimated_cost_usd'])}",
            *_range(plan, report.get("quote")),
            *(f"Recipe: {finding.message}" for finding in findings if finding.code == "recipe-chosen"),
            *_latents(facts.get("latents")),
            f"Limit: the job is ended after {duration(plan['max_runtime_seconds'])}",
            f"Run: {run.run_id}",
        ],
        ["The base model:", base_model] if is_address else [],
        [f"{counted(len(warnings), 'warning')}:", *_warned(warnings)] if warnings else [],
        ["The report:", run.uri(run.report_key)],
        ["To stop it:", f"./dev stop {run.run_id}"],
        ["The next e-mail tells how it ended."],
    ]
    return of_run(
        "started",
        "STARTING",
        run,
        f"Started: {run.dataset}, {plan['total_steps']} steps on {plan['instance_type']}",
        paragraphs,
        needs_action=bool(warnings),
        # Another rung is another start, and another price.
        occasion=instance,
        instance_type=plan["instance_type"],
        cost_usd=plan["estimated_cost_usd"],
    )


def _latents(taken: Mapping[str, Any] | None) -> list[str]:
    """Images that need not be encoded again."""
    if not taken or not taken["images"]:
        return []
    return [
        f"Latents: {taken['images']} of {counted(taken['of'], 'image')} from {' and '.join(taken['runs'])}"
    ]


def _range(plan: Mapping[str, Any], quoted: Mapping[str, Any] | None) -> list[str]:
    """How far off the quote may be, and what it rests on; the report's is that of the first rung."""
    if not quoted or quoted["instance_type"] != plan["instance_type"]:
        return []
    least, most = (quoted[name] for name in ("least_seconds", "most_seconds"))
    price = quoted["usd_per_hour"]
    cost = f", {money(least / 3600 * price)} to {money(most / 3600 * price)}" if price else ""
    spot = quoted["spot_cost_usd"]
    return [
        f"Between: {duration(least)} and {duration(most)}{cost}",
        *([f"On spot: about {money(spot)}"] if spot is not None else []),
        *quoted["assumed"],
    ]


def _warned(warnings: Sequence[Finding]) -> Paragraph:
    """A few of each code: fifty images that are small must not hide one option that is misspelt."""
    shown: list[Finding] = []
    more: dict[str, int] = {}
    for warning in warnings:
        if sum(one.code == warning.code for one in shown) < _MOST_OF_A_CODE:
            shown.append(warning)
        else:
            more[warning.code] = more.get(warning.code, 0) + 1
    rest = ", ".join(f"{count} x {code}" for code, count in more.items())
    return [*listed(shown, _MOST_WARNINGS), *([f"In the report, more of them: {rest}"] if rest else [])]


def progress(run: Run, facts: Mapping[str, Any]) -> Message:
    """A milestone of a run in training; `facts`: `{"observation", "milestone": percent}`."""
    observation, milestone = facts["observation"], facts["milestone"]
    remaining = observation.get("eta_seconds")
    loss = observation.get("loss")
    paragraphs: list[Paragraph] = [
        [f"{milestone} % of the training of {run.dataset} is done."],
        [
            f"Step: {known(observation.get('step'))} of {known(observation.get('total'))}",
            *([f"Loss: {known(loss)}"] if loss is not None else []),
            *([f"Remaining: about {duration(remaining)}"] if remaining is not None else []),
            f"Spent: {duration(observation.get('seconds'))}, {money(observation.get('cost_usd'))}",
            f"Instance: {known(observation.get('instance_type'))}{_capacity(observation.get('spot'))}",
            f"Run: {run.run_id}",
        ],
        ["To stop it:", f"./dev stop {run.run_id}"],
    ]
    return of_run(
        "progress",
        "TRAINING",
        run,
        f"Progress: {run.dataset} is trained to {milestone} %",
        paragraphs,
        occasion=f"{milestone} %",
        instance_type=observation.get("instance_type"),
        cost_usd=observation.get("cost_usd"),
    )


def unseen(run: Run, facts: Mapping[str, Any]) -> Message:
    """That a training's progress cannot be seen; `facts`: `{"observation", "unseen_since": ISO}`. Once a run."""
    observation = facts["observation"]
    paragraphs: list[Paragraph] = [
        [
            f"Whether the training of {run.dataset} makes progress cannot be seen since {facts['unseen_since']}."
        ],
        [
            (
                "CloudWatch has no new metric of the job, not even SageMaker's own. The training itself may be well: "
                "it goes on, and the watchdog in its container still ends it when it stands still, unless the machine "
                "itself hangs; then its time limit does."
            ),
        ],
        [
            f"Last seen step: {known(observation.get('step'))} of {known(observation.get('total'))}",
            f"Training job: {known(observation.get('training_job'))}",
            f"Run: {run.run_id}",
        ],
        [
            (
                "What to do: read the job's log. If it is so with every run, look for what keeps the training role "
                "from cloudwatch:PutMetricData, such as a policy of your organization."
            ),
        ],
        ["To stop the run:", f"./dev stop {run.run_id}"],
    ]
    return of_run(
        "progress",
        "TRAINING",
        run,
        f"Progress of {run.dataset} cannot be seen",
        paragraphs,
        occasion="unseen",
        needs_action=True,
        instance_type=observation.get("instance_type"),
        cost_usd=observation.get("cost_usd"),
    )


def _capacity(spot: bool | None) -> str:
    return "" if spot is None else " (spot)" if spot else " (on demand)"
