"""How a run ended: completed, failed, stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fine_tuning.failure import Failure
from fine_tuning.messages.message import (
    Message,
    Paragraph,
    copy_command,
    duration,
    known,
    log,
    money,
    of_run,
    size,
)
from fine_tuning.run import Run

_MOST_SAMPLES = 10
_REHEARSAL = (
    "This is a REHEARSAL: a CPU stand-in trained a small model on your images, to prove the path.",
    "The file is no model to draw with.",
)


def completed(run: Run, facts: Mapping[str, Any], plan: Mapping[str, Any], earlier_usd: float = 0) -> Message:
    """`earlier_usd`: what attempts before the last one cost."""
    model, observation = facts["model"], facts["observation"]
    rehearsal = bool(facts.get("rehearsal"))
    quoted_time, total = plan.get("estimated_seconds"), observation.get("total") or plan.get("total_steps")
    # The container proves that every step was made; the last metric may still be on its way.
    loss = observation.get("loss") if observation.get("step") == total else None
    cost = "none, it is a rehearsal" if rehearsal else money(observation.get("cost_usd"))
    paragraphs: list[Paragraph] = [
        [f"The model of {run.dataset} is trained and its file was checked."],
        _REHEARSAL if rehearsal else (),
        [f"Model: {size(model['size'])}, {model['tensors']} tensors", model["uri"]],
        ["Fetch it:", copy_command(model["uri"], ".")],
        _drawn_with(facts),
        [
            f"Cost: {cost} (quoted {money(plan.get('estimated_cost_usd'))})",
            *_earlier(earlier_usd),
            f"Time: {duration(observation.get('seconds'))} (quoted {duration(quoted_time)})",
            f"Steps: {known(total)}",
            *([f"Loss: {known(loss)}"] if loss is not None else []),
            f"sha256: {model['sha256']}",
            f"Run: {run.run_id}",
        ],
        _samples(facts.get("samples", ())),
        [
            "What it was made from:",
            facts["provenance_uri"],
            "The report:",
            run.uri(run.report_key),
        ],
    ]
    prefix = "Completed (rehearsal)" if rehearsal else "Completed"
    return of_run(
        "completed",
        "COMPLETED",
        run,
        f"{prefix}: the model of {run.dataset} is ready",
        paragraphs,
        instance_type=observation.get("instance_type"),
        cost_usd=0.0 if rehearsal else observation.get("cost_usd"),
    )


def _drawn_with(facts: Mapping[str, Any]) -> list[str]:
    """Which checkpoint it changes and which word calls it. As far as its provenance says."""
    word, base_model = facts.get("trigger_word"), facts.get("base_model")
    return [
        *(["Its base model:", base_model] if base_model else []),
        *([f"Trigger word: {word}"] if word else []),
    ]


def failed(
    run: Run, failure: Failure, plan: Mapping[str, Any] | None = None, earlier_usd: float = 0
) -> Message:
    """`plan` is empty before there is one; `earlier_usd` as above."""
    return _ended_early(
        "failed",
        run,
        failure,
        f"The run of {run.dataset} failed {failure.where}.",
        f"Failed: {run.dataset} {failure.where}",
        plan or {},
        earlier_usd,
    )


def stopped(
    run: Run, failure: Failure, plan: Mapping[str, Any] | None = None, earlier_usd: float = 0
) -> Message:
    """As `failed`."""
    return _ended_early(
        "stopped",
        run,
        failure,
        f"The run of {run.dataset} was stopped before it was done.",
        f"Stopped: {run.dataset}",
        plan or {},
        earlier_usd,
    )


def _ended_early(
    kind: str,
    run: Run,
    failure: Failure,
    what: str,
    subject: str,
    plan: Mapping[str, Any],
    earlier_usd: float,
) -> Message:
    observation = failure.observation or {}
    has_trained = observation.get("seconds") is not None
    paragraphs: list[Paragraph] = [
        [what],
        ["Cause:", failure.cause],
        ["What to do:", failure.remedy],
        ["To run it again, from its last checkpoint if there is one:", f"./dev retry {run.run_id}"],
        log(failure.log_lines),
        [
            *(
                [f"Spent: {duration(observation['seconds'])}, {money(observation.get('cost_usd'))}"]
                if has_trained
                else []
            ),
            *_earlier(earlier_usd),
            *(_quoted(plan) if has_trained or earlier_usd else []),
            f"Run: {run.run_id}",
        ],
        ["The report:", run.uri(run.report_key)],
    ]
    return of_run(
        kind,
        kind.upper(),
        run,
        subject,
        paragraphs,
        needs_action=True,
        instance_type=observation.get("instance_type"),
        cost_usd=observation.get("cost_usd"),
    )


def _earlier(usd: float) -> list[str]:
    return [f"Attempts before: {money(usd)}"] if usd else []


def _quoted(plan: Mapping[str, Any]) -> list[str]:
    """For the whole run, of which less was trained."""
    seconds, usd = plan.get("estimated_seconds"), plan.get("estimated_cost_usd")
    return [f"Quoted: {duration(seconds)}, {money(usd)}"] if seconds is not None else []


def _samples(samples: Sequence[str]) -> Paragraph:
    more = len(samples) - _MOST_SAMPLES
    rest = [f"... and {more} more beside them"] if more > 0 else []
    return ["Samples:", *samples[:_MOST_SAMPLES], *rest] if samples else []


FAILURES: Mapping[str, Callable[[Run, Failure, Mapping[str, Any], float], Message]] = {
    "failed": failed,
    "stopped": stopped,
}
