"""The flow's definition, checked by AWS's and the community's tools and by what neither of them sees."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fine_tuning import attempts, measurements, shards, upload
from fine_tuning.image import LONGEST_BUILD, wait_seconds
from tests.contract.definitions import (
    ROOT,
    STATE_MACHINE,
    expressions,
    resources,
    state_machine,
    states,
    substitutions,
    template,
)

STATES = [pytest.param(name, state, id=name) for name, state in states(state_machine())]
TASKS = [each for each in STATES if each.values[1]["Type"] == "Task"]  # type: ignore[index]

# An account's Lambdas all in use: the attempts of each state but these, of which one is a luxury and one no Lambda.
TOO_MANY, THROTTLED = "Lambda.TooManyRequestsException", 200
WITHOUT_PATIENCE = ("TakeOverLatents", "StartPipeline")

# What `$states` holds (docs.aws.amazon.com, Step Functions, "Transforming data with JSONata").
STATES_FIELDS = {"input", "result", "errorOutput", "context"}
CONTEXT_FIELDS = {"Execution", "State", "StateMachine", "Task", "Map"}
# JSONata's own functions that the flow uses; anything else after a dollar sign must be an assigned variable.
FUNCTIONS = {
    "append",
    "count",
    "exists",
    "floor",
    "fromMillis",
    "hash",
    "max",
    "merge",
    "millis",
    "min",
    "string",
    "substring",
}


def checked_by_node(script: str, *arguments: str) -> Any:
    """Runs a script of tests/contract/node with the node and the packages that ./dev installed."""
    here = Path(__file__).parent / "node"
    modules = os.environ.get("NODE_PATH")
    node = os.environ.get("NODE")
    if not modules or not node:
        pytest.fail("NODE and NODE_PATH are not set; run the tests with ./dev test")
    # Modules are looked up from the script's own folder, so it is read where the packages are.
    code = (here / script).read_text()
    command = [node, "--input-type=module", "-", *arguments]
    ended = subprocess.run(
        command,
        input=code,
        cwd=Path(modules).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_the_tools_find_nothing(tmp_path: Path) -> None:
    definition = tmp_path / "definition.asl.json"
    definition.write_text(json.dumps(state_machine()))
    assert checked_by_node("check_state_machine.mjs", str(definition)) == []


def test_the_tools_find_a_mistake(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing."""
    broken = json.loads(json.dumps(state_machine()))
    broken["States"]["PlanRun"]["Next"] = "Nowhere"
    broken["States"]["Receive"]["Assign"]["run"] = "{% $states.input( %}"
    definition = tmp_path / "definition.asl.json"
    definition.write_text(json.dumps(broken))
    problems = "\n".join(checked_by_node("check_state_machine.mjs", str(definition)))
    assert "language service" in problems
    assert "existing state" in problems
    assert "jsonata: States/Receive" in problems


@pytest.mark.parametrize(("name", "state"), TASKS)
def test_every_task_has_a_time_limit(name: str, state: dict[str, Any]) -> None:
    assert "TimeoutSeconds" in state


def test_the_machine_itself_has_a_time_limit() -> None:
    assert isinstance(state_machine()["TimeoutSeconds"], int)


@pytest.mark.parametrize(("name", "state"), [each for each in STATES if each.values[1]["Type"] == "Choice"])  # type: ignore[index]
def test_every_choice_has_a_default(name: str, state: dict[str, Any]) -> None:
    assert "Default" in state


@pytest.mark.parametrize(("name", "state"), TASKS)
def test_every_retry_backs_off_with_a_cap_and_full_jitter(name: str, state: dict[str, Any]) -> None:
    assert state["Retry"]
    for retry in state["Retry"]:
        if retry["MaxAttempts"] == 0:
            continue
        assert retry["JitterStrategy"] == "FULL"
        assert retry["BackoffRate"] > 1
        assert retry["MaxDelaySeconds"] <= 60
        assert retry["MaxAttempts"] <= (THROTTLED if TOO_MANY in retry["ErrorEquals"] else 20)


@pytest.mark.parametrize(
    ("name", "state"), [each for each in TASKS if each.values[0] not in WITHOUT_PATIENCE]
)
def test_who_is_throttled_waits_until_other_datasets_are_inspected(name: str, state: dict[str, Any]) -> None:
    """The first retrier that names an error is the one that counts; States.TaskFailed names every error of a task."""
    able = [each for each in state["Retry"] if {TOO_MANY, "States.TaskFailed"} & {*each["ErrorEquals"]}]
    assert able[0]["MaxAttempts"] == THROTTLED


def _successors(state: dict[str, Any]) -> set[str]:
    following = {state[key] for key in ("Next", "Default") if key in state}
    following |= {each["Next"] for each in state.get("Choices", [])}
    return following | {each["Next"] for each in state.get("Catch", [])}


def _kinds_of_mail(name: str, state: dict[str, Any]) -> bool:
    if state["Type"] != "Task":
        return False
    return state["Resource"].endswith("sns:publish") or "NotifyFunction" in str(state["Arguments"])


def test_no_way_to_a_failed_execution_goes_round_the_mail() -> None:
    """From the start to any Fail state, every path passes a state that mails the ending."""
    machine = state_machine()["States"]
    endings = {
        name for name, state in machine.items() if _kinds_of_mail(name, state) and name != "TellStarted"
    }
    seen, todo = set(), ["Receive"]
    while todo:
        name = todo.pop()
        if name in seen or name in endings:
            continue
        seen.add(name)
        todo += _successors(machine[name])
    assert not [name for name in seen if machine[name]["Type"] in ("Fail", "Succeed")]


@pytest.mark.parametrize(("name", "state"), [each for each in TASKS if each.values[0] != "InspectShard"])
def test_every_task_catches_everything(name: str, state: dict[str, Any]) -> None:
    assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_expressions_use_only_what_exists(name: str, state: dict[str, Any]) -> None:
    assigned = {
        variable
        for _, each in states(state_machine())
        for holder in (each, *each.get("Catch", []), *each.get("Choices", []))
        for variable in holder.get("Assign", {})
    }
    caught = {key: value for key, value in state.items() if key == "Catch"}
    rest = {key: value for key, value in state.items() if key not in ("Catch", "ItemProcessor")}
    for part, allowed in ((rest, STATES_FIELDS - {"errorOutput"}), (caught, STATES_FIELDS - {"result"})):
        for expression in expressions(part):
            assert set(re.findall(r"\$states\.(\w+)", expression)) <= allowed, expression
            assert set(re.findall(r"\$states\.context\.(\w+)", expression)) <= CONTEXT_FIELDS, expression
            names = set(re.findall(r"\$(\w+)", expression)) - {"states"}
            assert names - FUNCTIONS <= assigned, (
                f"{expression}: {names - FUNCTIONS - assigned} never assigned"
            )


@pytest.mark.parametrize(("name", "state"), STATES)
def test_a_variable_is_assigned_on_every_way_to_its_use(name: str, state: dict[str, Any]) -> None:
    """Walks every way from the start; a variable that one way leaves out would end the execution at run time."""
    machine = state_machine()["States"]
    if name not in machine:
        return
    certain: dict[str, set[str]] = {"Receive": set()}
    todo = ["Receive"]
    while todo:
        current = todo.pop()
        for following, assigned in _ways_out(machine[current]):
            known = certain[current] | assigned
            merged = known & certain[following] if following in certain else known
            if following not in certain or merged != certain[following]:
                certain[following] = merged
                todo.append(following)
    own = {key: value for key, value in state.items() if key != "ItemProcessor"}
    used = (
        {each for text in expressions(own) for each in re.findall(r"\$(\w+)", text)} - {"states"} - FUNCTIONS
    )
    assert used <= certain[name], f"{used - certain[name]} may be unassigned here"


def _ways_out(state: dict[str, Any]) -> list[tuple[str, set[str]]]:
    own = set(state.get("Assign", {}))
    ways = [(state[key], own) for key in ("Next", "Default") if key in state]
    ways += [(each["Next"], set(each.get("Assign", {}))) for each in state.get("Choices", [])]
    return ways + [(each["Next"], set(each.get("Assign", {}))) for each in state.get("Catch", [])]


def test_no_attempt_is_started_under_the_last_ones_address() -> None:
    """Were the answer to its start lost, StopTraining would look at a job that is over, and find nothing to stop."""
    machine = state_machine()["States"]
    again = [each for each in machine["IsThereAnotherAttempt"]["Choices"] if "attempt" in each["Assign"]]
    assert {each["Next"] for each in again} == {"TellWaiting", "StartPipeline"}
    assert {each["Assign"]["pipeline_execution_arn"] for each in again} == {"{% '' %}"}


def test_the_watcher_is_handed_the_task_token() -> None:
    for name, state in states(state_machine()):
        if state.get("Resource", "").endswith(".waitForTaskToken"):
            assert "$states.context.Task.Token" in json.dumps(state["Arguments"]), name


def test_the_first_attempt_is_told_as_the_functions_tell_every_later_one() -> None:
    (accepted,) = dict(states(state_machine()))["IsAccepted"]["Choices"]
    assert accepted["Assign"]["attempt"] == attempts.Attempt().as_document()
    assert attempts.Attempt.from_document(accepted["Assign"]["attempt"]) == attempts.Attempt()


def test_a_look_is_told_what_the_present_attempt_trains_on() -> None:
    """How long its first step may take, and how long it may wait and train, is the rung's."""
    told = state_machine()["States"]["WatchTraining"]["Arguments"]["Payload"]
    assert (told["rung"], told["attempt"]) == ("{% $rung %}", "{% $attempt.number %}")


def test_an_ending_is_judged_by_the_attempt_that_ended_and_by_what_was_planned() -> None:
    told = state_machine()["States"]["JudgeEnding"]["Arguments"]["Payload"]
    names = ("attempt", "pipeline_execution_arn", "failure")
    assert {name: told[name] for name in names} == {name: f"{{% ${name} %}}" for name in names}
    assert (told["ladder"], told["budget_usd"]) == ("{% [$planned.ladder] %}", "{% $planned.budget_usd %}")


def test_the_template_substitutes_exactly_what_the_definition_expects() -> None:
    (machine,) = resources("AWS::Serverless::StateMachine").values()
    assert set(machine["DefinitionSubstitutions"]) == substitutions()


def test_no_partition_account_region_or_arn_is_written_out() -> None:
    """Where the partition of an integration is not the execution's, States.Runtime ends it, which no Catch sees."""
    (machine,) = resources("AWS::Serverless::StateMachine").values()
    assert machine["DefinitionSubstitutions"]["Partition"] == {"Ref": "AWS::Partition"}
    arns = re.findall(r"\barn:\S+", STATE_MACHINE.read_text())
    assert arns
    assert [arn for arn in arns if not arn.startswith("arn:${Partition}:states:::")] == []


# Which way a run of a given kind takes at each Choice, in order; the last answer stays.
Choices = dict[str, list[str]]

GOOD_RUN: Choices = {
    "IsUploadComplete": ["WaitForUpload", "InspectShards"],
    "IsAccepted": ["ResolveImage"],
    "IsImageReady": ["ClaimIdentity"],
    "IsClaimed": ["TakeSlot"],
    "HowDidTrainingEnd": ["VerifyModel"],
}


def transitions(choices: Choices, shards: int, looks: int) -> int:
    """State transitions of a run, counted by walking the definition itself.

    Args:
        shards: iterations of the Map, each of which counts its own states.
        looks: how often the flow waits for the token; all but the last end by States.Timeout.
    """
    machine = state_machine()["States"]
    taken = {name: list(ways) for name, ways in choices.items()}
    name, count = state_machine()["StartAt"], 1  # the start is a transition too
    while machine[name]["Type"] not in ("Succeed", "Fail"):
        state = machine[name]
        if state["Type"] == "Map":
            count += shards * (len(state["ItemProcessor"]["States"]) + 1)
        if state["Type"] == "Choice":
            ways = taken[name]
            following = ways.pop(0) if len(ways) > 1 else ways[0]
            assert following in _successors(state)
        elif name == "WatchTraining" and looks > 1:
            looks -= 1
            (following,) = [
                each["Next"] for each in state["Catch"] if each["ErrorEquals"] == ["States.Timeout"]
            ]
        else:
            following = state["Next"]
        name, count = following, count + 1
    assert name == "Completed"
    return count


def _default(parameter: str) -> int:
    return int(template()["Parameters"][parameter]["Default"])


def _of_one_hour() -> int:
    """1,000 images with captions, settled after one wait, an image that is there, an hour of training."""
    shards = -(-2 * 1000 // _default("ShardSize"))
    return transitions(GOOD_RUN, shards, _looks(3600) + 1)


def test_a_one_hour_run_takes_fewer_than_60_transitions() -> None:
    assert _of_one_hour() < 60


# Events that each state writes into the history. A Lambda: entered, scheduled, started, succeeded, left (with its
# task token: submitted and timed out instead); a Choice, Wait or Pass: entered, left. An iteration of the Map starts
# and succeeds beside its task; the Map itself is entered, starts, succeeds, is left.
TASK, TOKEN, PLAIN, ITERATION, MAP = 5, 6, 2, 2, 4
RETRY = 3  # the failure, and the task scheduled and started once more
HISTORY = 25_000  # events end an execution
DAY = 24 * 3600


def _interval(seconds: int) -> int:
    """Between two looks at a training whose turn came so long ago."""
    return min(3600, max(_default("WatchIntervalSeconds"), seconds // 60))


def test_looks_become_rarer_with_time_as_these_sums_reckon() -> None:
    expression = state_machine()["States"]["WatchTraining"]["TimeoutSeconds"][2:-2]
    # Half a second later than each age, so that no rounding of the clock matters.
    ages = [0, 600, 36_000, 36_060, 100_020, 216_000, 30 * DAY]
    asked = [expression.replace("$turn_at", f"($millis() - {1000 * age + 500})") for age in ages]
    assert checked_by_node("evaluate.mjs", *asked) == [_interval(age) for age in ages]


def _times(seconds: int, wait: Callable[[int], int]) -> int:
    """Looks in so many seconds, each after a wait that depends on the seconds before it."""
    waited = looks = 0
    while waited < seconds:
        waited, looks = waited + wait(waited), looks + 1
    return looks


def _looks(seconds: int) -> int:
    return _times(seconds, _interval)


def _of_48_hours() -> int:
    """20,000 images with captions."""
    return TOKEN * (transitions(GOOD_RUN, shards=200, looks=1) + _looks(48 * 3600))


def test_a_run_of_48_hours_stays_far_below_the_history_of_an_execution() -> None:
    """25,000 events end an execution; of these a fifth would do."""
    assert _of_48_hours() < 5_000


def test_the_pages_state_these_sums() -> None:
    scale, architecture = (
        " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())
        for name in ("scale.md", "architecture.md")
    )
    assert f"{_of_one_hour()} state transitions" in scale
    assert f"+ {_looks(48 * 3600)} looks) × 6 events" in scale
    assert f"{_of_an_image()} looks" in scale
    assert f"{_looks(_of_the_machine())} looks" in scale
    assert f"{_room_for_retries():,} retries" in scale
    assert f"{rest_of_the_longest():,} events" in scale
    for page in (scale, architecture):
        assert f"{_of_48_hours():,} events" in page
        assert f"{_of_the_longest():,} events" in page


def test_the_longest_run_stays_within_the_history_of_an_execution() -> None:
    assert _of_the_longest() < HISTORY * 0.98


def test_throttling_leaves_room_in_the_history() -> None:
    """Of the longest run, each shard of which was throttled once, one state may be for as long as it may be at all."""
    assert _of_the_longest() + RETRY * (shards.MOST_SHARDS + THROTTLED) <= HISTORY


def _room_for_retries() -> int:
    """In the history of a run of 48 hours with 100,000 images, which are 1,000 shards."""
    rest = TOKEN * (transitions(GOOD_RUN, shards=0, looks=1) + _looks(48 * 3600))
    return (HISTORY - rest - (ITERATION + TASK) * 1_000) // RETRY


def _of_the_machine() -> int:
    """Seconds after which the state machine ends an execution, whatever it does."""
    seconds: int = state_machine()["TimeoutSeconds"]
    return seconds


def _of_an_image() -> int:
    """Looks for an image whose build waits for others' and is then queued and made, each as long as may be."""
    (build,) = resources("AWS::CodeBuild::Project").values()
    minutes = build["QueuedTimeoutInMinutes"] + build["TimeoutInMinutes"]
    assert timedelta(minutes=minutes) == LONGEST_BUILD
    return _times(2 * 60 * minutes, lambda waited: wait_seconds(timedelta(seconds=waited)))


def _of_an_upload() -> int:
    """Looks for files that never come, where the first wait is the shortest that may be."""
    seconds = int(template()["Parameters"]["UploadWaitSeconds"]["MaxValue"])
    return _times(seconds, lambda waited: upload._wait_seconds(0, waited))


def _of_the_longest() -> int:
    """All at their largest at once, with as many shards as any dataset has."""
    return rest_of_the_longest() + (ITERATION + TASK) * shards.MOST_SHARDS


def rest_of_the_longest() -> int:
    """Everything but the iterations of the Map, at its largest at once.

    The queue is looked at every hour, which is no more often than a training, so the training counts as if it had the
    whole time of the machine.
    """
    assert state_machine()["States"]["TakeSlot"]["TimeoutSeconds"] >= _interval(30 * DAY)
    once = TOKEN * transitions(GOOD_RUN, shards=0, looks=1) + MAP
    # TakeInventory, IsUploadComplete, WaitForUpload.
    uploads = _of_an_upload()
    # ResolveImage, IsImageReady, WaitForImage.
    waits = (TASK + 2 * PLAIN) * (uploads + _of_an_image())
    # Every rung of the longest ladder is tried as often as may be: JudgeEnding, IsThereAnotherAttempt, TellWaiting,
    # WaitForCapacity, StartPipeline, TellStarted, WatchTraining, HowDidTrainingEnd. So is each that others stood in the
    # way of.
    rungs = 2 * _manifest_schema()["properties"]["instance_types"]["maxItems"]
    tries = rungs * int(template()["Parameters"]["CapacityTries"]["MaxValue"]) + _of_waiting_for_others()
    return once + waits + (4 * TASK + TOKEN + 3 * PLAIN) * tries + TOKEN * _looks(_of_the_machine())


def test_no_look_at_a_training_is_waited_for_longer_than_silence_is_judged_by() -> None:
    assert timedelta(seconds=_interval(30 * DAY)) < measurements._FRESH


def _of_waiting_for_others() -> int:
    """Tries of a run whose quota other jobs use, where the first wait is the shortest that may be."""
    patience = attempts.Patience(1, int(template()["Parameters"]["CapacityWaitSeconds"]["MinValue"]))
    over = attempts.Ended("ml.g5.8xlarge", False, "Failed", "quota-in-use", None, "", None, None, "")
    attempt, tries = attempts.Attempt(), 0
    while then := attempts.following([{"usd_per_hour": 1}], attempt, over, patience, None):
        attempt, tries = then.attempt, tries + 1
    return tries


def _manifest_schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "events" / "manifest.schema.json").read_bytes())
    return loaded


def test_the_record_of_a_training_says_what_later_quotes_learn_from() -> None:
    told = dict(states(state_machine()))["TellStarted"]["Arguments"]["Payload"]["facts"]["plan"]
    names = ("instance_type", "spot", "execution", "own_seconds", "table_seconds")
    assert {name: told[name] for name in names} == {name: f"{{% $rung.{name} %}}" for name in names}
