"""`./dev validate DIR` and `./dev plan DIR`: exit code 0 accepted, 1 rejected, 2 nothing to judge."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from local.dataset_folder import NoDatasetError
from local.preflight import folder, page
from local.preflight.limits import of_template


def main(arguments: list[str]) -> int:
    try:
        return run(parse(arguments))
    except NoDatasetError as problem:
        print(problem, file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    with page.progress(Console(stderr=True)) as on_file:
        judged = folder.judge(options.folder, of_template(), on_file)
    if options.json:
        print(json.dumps(judged.report, indent=1, ensure_ascii=False))
    else:
        console = Console(soft_wrap=False)
        page.show_findings(console, judged)
        if options.command == "plan":
            page.show_plan(console, judged)
        page.show_verdict(console, judged)
    return 0 if judged.report["accepted"] else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (("validate", "what is wrong"), ("plan", "also buckets, steps, time and cost")):
        command = commands.add_parser(name, help=f"judge a dataset's folder: {purpose}")
        command.add_argument("folder", type=Path, help="holds images, captions and manifest.json")
        command.add_argument("--json", action="store_true", help="print report.json as a run would write it")
    return parser.parse_args(arguments)
