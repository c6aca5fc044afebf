"""Claims the identity of a run, so that the same dataset is not trained twice."""

from __future__ import annotations

from fine_tuning.aws.objects import Objects
from fine_tuning.aws.run_records import RunRecords
from fine_tuning.identity import identity, is_repetition
from fine_tuning.inventory import from_lines
from fine_tuning.run import Run
from fine_tuning.steps.reading import read_manifest


def claim_identity(run: Run, image: str, objects: Objects, records: RunRecords) -> dict[str, str | None]:
    """Claimed, or repeated with the run that is repeated. Safe to repeat: a run keeps its own claim."""
    manifest = read_manifest(run, objects)
    base_model = objects.read_document(run.plan_key)["base_model"]
    files = from_lines(objects.read(run.inventory_key))
    name = identity(manifest.document, files, base_model, image)
    holder = records.claim(name, run.run_id)
    # Two runs may find the same failed holder: the one that loses the take-over looks at the winner.
    while holder != run.run_id:
        record = records.get(holder)
        status = record["status"] if record else None
        if is_repetition(status, manifest.force):
            records.note(run.run_id, {"identity": name, "image": image})
            return {"status": "repeated", "repeats": holder, "repeats_status": status}
        holder = records.claim(name, run.run_id, instead_of=holder)
    records.note(run.run_id, {"identity": name, "image": image})
    return {"status": "claimed", "repeats": None, "repeats_status": None}
