"""What a person sees of a run, from the record alone."""

import io
from typing import Any

from rich.console import Console

from local.cli.run_view import RunView


def change(status: str, second: int) -> dict[str, str]:
    return {"status": status, "at": f"2026-01-02T03:04:{second:02d}+00:00"}


def shown(records: list[dict[str, Any]], terminal: bool = False) -> str:
    output = io.StringIO()
    # A terminal of its own, whatever TERM says where the tests run.
    console = Console(file=output, force_terminal=terminal, width=150, _environ={"TERM": "xterm-256color"})
    RunView(console).follow(records)
    return output.getvalue()


def test_each_status_is_one_line_however_often_the_record_changes() -> None:
    received = {"status": "RECEIVED", "history": [change("RECEIVED", 1)]}
    inspecting = {"status": "INSPECTING", "history": [change("RECEIVED", 1), change("INSPECTING", 2)]}
    lines = shown([received, received, inspecting, inspecting]).splitlines()
    assert [line.split()[1] for line in lines] == ["RECEIVED", "INSPECTING"]


def test_training_is_shown_with_step_loss_and_time_to_go() -> None:
    observation = {"step": 12, "total": 48, "loss": 0.1234, "eta_seconds": 9.2, "training_job": "job"}
    text = shown([{"status": "TRAINING", "history": [change("TRAINING", 1)], "observation": observation}])
    assert "step 12/48  loss 0.1234  ETA 9 s" in text


def test_plain_output_has_about_ten_lines_of_progress_and_the_last_step() -> None:
    records = [
        {"status": "TRAINING", "history": [], "observation": {"step": step, "total": 200, "loss": 0.5}}
        for step in range(1, 201)
    ]
    lines = shown(records).splitlines()
    assert 8 <= len(lines) <= 12
    assert "step 200/200" in lines[-1]


def test_a_terminal_gets_a_bar_that_is_gone_when_training_is_over() -> None:
    records = [
        {"status": "TRAINING", "history": [], "observation": {"step": 1, "total": 4}},
        {"status": "TRAINING", "history": [], "observation": {"step": 4, "total": 4, "loss": 0.25}},
    ]
    text = shown(records, terminal=True)
    assert "━" in text
    assert "loss 0.2500" in text


def test_numbers_that_are_not_known_yet_are_left_out() -> None:
    assert shown([{"history": [], "observation": {"step": None, "total": None, "loss": None}}]) == ""
    text = shown([{"history": [], "observation": {"step": 3, "total": 3, "loss": None, "eta_seconds": None}}])
    assert text.strip() == "step 3/3"


def test_a_failure_shows_cause_and_remedy() -> None:
    failure = {"cause": "The disk was full.", "remedy": "Take a larger volume."}
    text = shown([{"status": "FAILED", "history": [change("FAILED", 1)], "failure": failure}])
    assert "The disk was full. Take a larger volume." in text


def test_a_plan_is_shown_with_its_quote() -> None:
    plan = {
        "total_steps": 120,
        "instance_type": "ml.g5.8xlarge",
        "estimated_seconds": 60,
        "estimated_cost_usd": 0.05,
    }
    text = shown([{"status": "PLANNED", "history": [change("PLANNED", 1)], "plan": plan}])
    assert "120 steps, 60 s on ml.g5.8xlarge, $0.05" in text
