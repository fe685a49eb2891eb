"""The two long pieces of work on a batch: reading its input file, and writing its results."""

import time

from orchestrator.batch.batches import Batch, Batches
from orchestrator.batch.files import Draft, File, Files
from orchestrator.batch.lines import Problem, read
from orchestrator.config.spec import Gateway

LOST = Problem("input_file_lost", "The input file is not on this node any more; upload it again.")


def work_on(batch: Batch, owner: str, batches: Batches, files: Files, spec: Gateway) -> None:
    """Whichever of the two the batch waits for. Safe to be done again, after a crash or by two
    owners at once. Raises sqlite3.Error, OSError."""
    if batch.status == "validating":
        _validate(batch, owner, batches, files, spec)
    else:
        _write_results(batch, owner, batches, files, spec.batches.retention_s)


def _validate(batch: Batch, owner: str, batches: Batches, files: Files, spec: Gateway) -> None:
    try:
        with files.open(batch.input_file_id) as content:
            lines, problems = read(
                content, batch.endpoint, spec.batches.max_lines, spec.max_body_bytes
            )
    except FileNotFoundError:
        lines, problems = [], [LOST]
    if problems:
        batches.fail(batch.id, time.time(), problems)
    else:
        batches.validated(batch.id, owner, time.time(), lines)


def _write_results(
    batch: Batch, owner: str, batches: Batches, files: Files, retention_s: float
) -> None:
    with files.writing() as output, files.writing() as error:
        for answered, line in batches.results(batch):
            (output if answered else error).write(line)
        kept = [
            _keep(batch, draft, part, retention_s) if draft.bytes else None
            for part, draft in (("output", output), ("error", error))
        ]
        batches.finished(batch.id, owner, time.time(), *kept)


def _keep(batch: Batch, draft: Draft, part: str, retention_s: float) -> File:
    now_s = time.time()
    # Of a name that follows from the batch's: written twice, it is still one file.
    file = File(
        id=f"file-{batch.id.removeprefix('batch_')}-{part}",
        workload=batch.workload,
        purpose="batch_output",
        filename=f"{batch.id}_{part}.jsonl",
        bytes=draft.bytes,
        created_at_s=now_s,
        expires_at_s=now_s + (batch.output_expires_after_s or retention_s),
        claimed=batch.claimed,
    )
    draft.keep(file.id)
    return file
