"""The commands of ./dev that are Python programs."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from local.cli import demo, dropping, image_source, refusal, replay, retrying, runs, stopping, up
from local.cli.account import account_in_use, place_of
from local.cli.deployment import stack_outputs
from local.cli.failure import CommandError
from local.cli.interruption import leaving
from local.dataset_folder import NoDatasetError, files_of

NOTHING_STAYS = "Nothing was left behind."


def main(arguments: list[str]) -> int:
    """The exit code. What a person can mend is told without a traceback."""
    options = parse(arguments)
    try:
        with refusal.told():
            return run(options)
    except (CommandError, NoDatasetError) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    match options.command:
        case "demo":
            with leaving(NOTHING_STAYS):
                return demo.run(options.dataset)
        case "up":
            with leaving(NOTHING_STAYS):
                return up.up()
        case "down":
            return up.down()
        case "drop":
            files_of(options.folder)  # before any account is asked
    account = account_in_use()
    if options.stack_name:
        account = replace(account, stack_name=options.stack_name)
    if account.embedded is None:
        # Not on stdout, where a program may read the answer.
        print(place_of(account), file=sys.stderr, flush=True)
    outputs = stack_outputs(account)
    match options.command:
        case "drop":
            return dropping.run(
                account, outputs, options.folder, options.left_over, follow=not options.no_wait
            )
        case "stop":
            return stopping.run(account, outputs, options.run)
        case "retry":
            return retrying.run(account, outputs, options.run, follow=not options.no_wait)
        case "runs":
            return runs.run(account, outputs)
        case "replay":
            return replay.run(account, options.hops, options.dry_run)
        case "push-image-source":
            return image_source.run(account, outputs)
    raise AssertionError(options.command)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    deployed = argparse.ArgumentParser(add_help=False)
    deployed.add_argument("--stack-name", metavar="NAME", help="default: the stack that samconfig.toml names")
    command = commands.add_parser("demo", help="the whole path on the embedded AWS")
    command.add_argument("dataset", nargs="?", type=Path, default=demo.EXAMPLE, help="default: %(default)s")
    commands.add_parser("up", help="start and deploy the embedded AWS, left running")
    commands.add_parser("down", help="stop what up left running")
    command = commands.add_parser(
        "drop", parents=[deployed], help="drop a dataset into the deployment's bucket"
    )
    command.add_argument("folder", type=Path, help="holds images, captions and manifest.json")
    command.add_argument("--no-wait", action="store_true", help="do not follow the run")
    left_over = command.add_mutually_exclusive_group()
    for choice, what in (
        ("delete", "delete in the bucket what the folder lacks"),
        ("keep", "train on it too"),
    ):
        left_over.add_argument(f"--{choice}", action="store_const", const=choice, dest="left_over", help=what)
    command = commands.add_parser("stop", parents=[deployed], help="stop a run and its GPU job")
    command.add_argument("run", help="its id, or the beginning of it, as ./dev runs lists it")
    command = commands.add_parser(
        "retry", parents=[deployed], help="run a failed or stopped run once more, from its last checkpoint"
    )
    command.add_argument("run", help="its id, or the beginning of it, as ./dev runs lists it")
    command.add_argument("--no-wait", action="store_true", help="do not follow the run")
    commands.add_parser("runs", parents=[deployed], help="list the runs of the deployment")
    commands.add_parser(
        "push-image-source", parents=[deployed], help="push container/ to CodeCommit and wait for its image"
    )
    command = commands.add_parser(
        "replay", parents=[deployed], help="hand dead letters to their targets once more"
    )
    command.add_argument("hops", nargs="*", metavar="HOP", help="a hop, or a queue's ARN; default: all")
    command.add_argument("--dry-run", action="store_true", help="show the letters and leave them")
    return parser.parse_args(arguments)
