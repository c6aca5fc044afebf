"""`./dev replay [HOP…]`: what was not processed is handed to its target once more.

EventBridge takes no event whose source begins with `aws.` from anybody but AWS, so the target is invoked directly,
and its answer awaited: it says whether the letter may go. All targets are safe to invoke twice.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.cli.account import Account
from local.cli.failure import CommandError
from local.cli.letters import Letter, hop_of, read

HIDDEN_SECONDS = 900  # from other readers, while a batch is worked on
MOST_A_BATCH = 10  # SQS gives no more
# Longer than any function's time-out, and no second attempt: a function is not to run twice because it is slow.
PATIENT = Config(read_timeout=910, retries={"total_max_attempts": 1})


class NotReplayedError(Exception):
    """Why the letter stays where it is."""


@dataclass(frozen=True)
class Queue:
    hop: str
    url: str


def run(account: Account, hops: Sequence[str], dry_run: bool) -> int:
    """Exit code 0 when no letter is left in the queues, or when they were only shown."""
    left = replayed = 0
    for queue in chosen(queues(account), hops):
        kept, gone = empty(account, queue, dry_run)
        left, replayed = left + kept, replayed + gone
    print(f"{replayed} replayed, {left} left")
    return 0 if dry_run or not left else 1


def empty(account: Account, queue: Queue, dry_run: bool) -> tuple[int, int]:
    """How many letters stayed in the queue, and how many were replayed and deleted."""
    sqs = account.client("sqs")
    kept: list[Letter] = []
    replayed = 0
    try:
        for letter in letters(sqs, queue):
            print(f"{queue.hop}  {letter.sent_at:%Y-%m-%d %H:%M:%S} UTC  {letter.subject}\n  {letter.error}")
            may_go, what = settle(account, letter, dry_run)
            print(f"  {what}", flush=True)
            if may_go:
                sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=letter.receipt)
                replayed += 1
            else:
                kept.append(letter)
    finally:
        for letter in kept:
            sqs.change_message_visibility(
                QueueUrl=queue.url, ReceiptHandle=letter.receipt, VisibilityTimeout=0
            )
    return len(kept), replayed


def settle(account: Account, letter: Letter, dry_run: bool) -> tuple[bool, str]:
    """Whether the letter may be deleted, and what became of it."""
    try:
        if dry_run:
            return False, f"would go to {destination(letter)}"
        return True, f"replayed: {deliver(account, letter)}"
    except NotReplayedError as problem:
        return False, f"stays: {problem}"


def queues(account: Account) -> list[Queue]:
    """The dead-letter queues of the stack."""
    pages = account.client("cloudformation").get_paginator("list_stack_resources")
    listed = [
        resource
        for page in pages.paginate(StackName=account.stack_name)
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::SQS::Queue"
    ]
    hops = [(hop_of(resource["LogicalResourceId"]), resource["PhysicalResourceId"]) for resource in listed]
    return sorted((Queue(hop, url) for hop, url in hops if hop), key=lambda queue: queue.hop)


def chosen(found: Sequence[Queue], hops: Sequence[str]) -> list[Queue]:
    """Those of the named hops, by hop or by the queue's ARN; all where none is named."""
    unknown = [name for name in hops if not any(is_named(queue, name) for queue in found)]
    if unknown:
        known = ", ".join(queue.hop for queue in found)
        raise CommandError(f"no dead-letter queue {', '.join(unknown)}; there are: {known}")
    return [queue for queue in found if not hops or any(is_named(queue, name) for name in hops)]


def is_named(queue: Queue, name: str) -> bool:
    return name == queue.hop or name.rpartition(":")[2] == queue.url.rpartition("/")[2]


def letters(sqs: Any, queue: Queue) -> Iterator[Letter]:
    """Every letter, batch by batch; each is hidden from others until it is deleted or shown again."""
    while True:
        answer = sqs.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=MOST_A_BATCH,
            VisibilityTimeout=HIDDEN_SECONDS,
            WaitTimeSeconds=1,  # asks all of SQS's servers, so that nothing is overlooked
            MessageAttributeNames=["All"],
            AttributeNames=["SentTimestamp"],
        )
        if not answer.get("Messages"):
            return
        yield from (read(message) for message in answer["Messages"])


def destination(letter: Letter) -> str:
    """`lambda …` or `codebuild …`. Raises NotReplayedError for what nothing can be done with."""
    service, name = letter.target.split(":")[2:3], letter.target.rpartition(":")[2]
    if service == ["lambda"]:
        return f"lambda {name}"
    if service == ["codebuild"] and (letter.event.get("detail") or {}).get("commitId"):
        return f"codebuild {name.rpartition('/')[2]}"
    raise NotReplayedError(f"nothing here can hand it to '{letter.target}'")


def deliver(account: Account, letter: Letter) -> str:
    """What became of it. Raises NotReplayedError when its target failed again."""
    service, name = destination(letter).split(" ")
    try:
        if service == "codebuild":
            return start_build(account, name, letter)
        return invoke(account, letter)
    except (ClientError, BotoCoreError) as problem:
        raise NotReplayedError(str(problem)) from problem


def invoke(account: Account, letter: Letter) -> str:
    answer = account.client("lambda", PATIENT).invoke(
        FunctionName=letter.target, Payload=json.dumps(letter.event).encode()
    )
    document = json.loads(answer["Payload"].read() or b"null") or {}
    if answer.get("FunctionError"):
        raise NotReplayedError(f"it failed again: {document.get('errorMessage', 'without a message')}")
    told = [f"{name} {document[name]}" for name in ("status", "run_id") if document.get(name)]
    return ", ".join(told) or "done"


def start_build(account: Account, project: str, letter: Letter) -> str:
    """Of the pushed commit. An older one than the branch's tip builds, but `latest` stays with the tip."""
    commit = str(letter.event["detail"]["commitId"])
    answer = account.client("codebuild").start_build(
        projectName=project, sourceVersion=commit, idempotencyToken=letter.message_id
    )
    return f"build {answer['build']['id']} of {commit[:12]}"
