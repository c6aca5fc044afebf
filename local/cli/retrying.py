"""`./dev retry RUN`: the same drop once more, from its last checkpoint."""

import json
from collections.abc import Mapping

from local.cli import dropping, records, refusal
from local.cli.account import Account
from local.cli.failure import CommandError


def run(account: Account, outputs: Mapping[str, str], run_id: str, follow: bool) -> int:
    """Exit code as of `./dev drop`."""
    table = records.table_of(account, outputs)
    run_id = str(records.find(table, run_id)["run_id"])
    with refusal.told("./dev runs shows whether it is run once more."):
        answer = account.client("lambda").invoke(
            FunctionName=outputs["RetryFunctionName"], Payload=json.dumps({"run_id": run_id}).encode()
        )
    document = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise CommandError(document.get("errorMessage", "the function gave no reason"))
    print(f"run {document['run_id']} retries {document['retries']}")
    return dropping.follow_run(account, table, document["run_id"]) if follow else 0
