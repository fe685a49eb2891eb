"""Requests from files, for `explain` and `plan`."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import DataClassLabel
from orchestrator.ledger.audit import DecisionRow
from orchestrator.ledger.audit_read import rows as read_rows
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.facts import Facts
from orchestrator.policy.facts_record import LABELS, recall
from orchestrator.traces.requests import read_blocks

Models = Mapping[str, Sequence[str]]
"""By workload, the models that it may use."""

MOST_RECORDED = 10_000
ASKED = ("workload", "model", *LABELS, "max_tokens", "prompt_tokens")
"""Recorded facts that are of the request, and not of the moment."""


class RequestError(Exception):
    """A file of requests cannot be read; the message names file, line and the mend."""


class Request(BaseModel):
    """Who asks for which model, with what label."""

    model_config = ConfigDict(extra="forbid")

    workload: str
    model: str
    data_class: DataClassLabel = DataClass.PUBLIC
    max_tokens: int = Field(default=0, ge=0)

    def facts(self) -> Facts:
        return Facts(self.workload, self.model, claimed=self.data_class, max_tokens=self.max_tokens)


def read_request(file: Path, models: Models) -> Facts:
    """Of a JSON file. Raises RequestError."""
    return _request(_read(file), f"{file}:1", models)


def read_requests(file: Path, models: Models) -> list[Facts]:
    """One JSON object a line. Raises RequestError."""
    lines = _read(file).splitlines()
    found = [
        _request(line, f"{file}:{number}", models)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise RequestError(f"{file}:1: no requests; write one JSON object a line")
    return found


def read_trace(file: Path, models: Models) -> list[Facts]:
    """A CSV of `arrival_s,prompt_tokens,output_tokens`. Who asks stands in a column `workload`;
    without one, all workloads take turns. Each takes turns with its models.

    Raises TraceError.
    """
    everybody, turns = list(models), dict.fromkeys(models, 0)
    found: list[Facts] = []
    for block in read_blocks(file, frozenset(models)):
        for number in range(len(block)):
            if block.workload is not None:
                workload = block.workload[number]
            else:
                workload = everybody[len(found) % len(everybody)]
            mine = models[workload]
            found.append(
                Facts(
                    workload,
                    mine[turns[workload] % len(mine)],
                    max_tokens=int(block.output_tokens[number]),
                    prompt_tokens=int(block.prompt_tokens[number]),
                )
            )
            turns[workload] += 1
    return found


def read_recorded(trail: Path, models: Models, catalogue: Catalogue) -> list[Facts]:
    """What was asked last, by the audit trail: who, for what, with which labels and how long. What
    was so only then, such as the load, is left out; and so are callers that are no more.

    Raises RequestError for a trail without any, AuditError for one that cannot be read.
    """
    rows = (r for r in read_rows(trail) if isinstance(r, DecisionRow) and r.attempt == 1)
    latest = nlargest(MOST_RECORDED, rows, key=lambda row: row.time_s)
    found = [
        recall({name: row.facts[name] for name in ASKED if name in row.facts}, catalogue)
        for row in latest
        if row.facts["model"] in models.get(row.workload, ())
    ]
    if not found:
        raise RequestError(f"{trail}: no request is on record yet; give --requests or --replay")
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{file}: {error.strerror}; give the path of a JSON file") from None
    except UnicodeDecodeError:
        raise RequestError(f"{file}:1: not UTF-8; give a JSON file") from None


def _request(text: str, where: str, models: Models) -> Facts:
    try:
        request = Request.model_validate_json(text)
    except ValidationError as error:
        raise RequestError("\n".join(_sentences(error, where))) from None
    _known(request.workload, where, models)
    return request.facts()


def _sentences(error: ValidationError, where: str) -> Iterator[str]:
    for one in error.errors():
        field = ".".join(map(str, one["loc"]))
        yield f"{where}: {field}: {one['msg']}" if field else f"{where}: {one['msg']}"


def _known(workload: str, where: str, models: Models) -> None:
    if workload not in models:
        raise RequestError(f"{where}: no workload '{workload}'; there are: {', '.join(models)}")
