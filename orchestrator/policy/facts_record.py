"""Facts as data, for a decision to be made again later: what differs from the defaults."""

from collections.abc import Mapping
from typing import Any

from orchestrator.config.data_class import DataClass
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.facts import Facts

LABELS = ("claimed", "session", "content")
NUMBERS = ("max_tokens", "prompt_tokens", "snapshot_age_s")
BY_ENDPOINT = ("excluded", "affinity")


def record(facts: Facts, catalogue: Catalogue) -> dict[str, Any]:
    """Plain JSON values. Of the requests that are open, those at endpoints of the model."""
    row: dict[str, Any] = {"workload": facts.workload, "model": facts.model}
    for name in LABELS:
        label: DataClass = getattr(facts, name)
        if label is not DataClass.PUBLIC:
            row[name] = label.label
    for name in (*NUMBERS, "variant", "smaller_variant"):
        if value := getattr(facts, name):
            row[name] = value
    for name in BY_ENDPOINT:
        if by_endpoint := getattr(facts, name):
            row[name] = dict(by_endpoint)
    if facts.inflight is not None:
        inflight = {
            candidate.endpoint: int(facts.inflight[candidate.number])
            for candidate in catalogue.by_model.get(facts.model, ())
            if facts.inflight[candidate.number]
        }
        if inflight:
            row["inflight"] = inflight
    return row


def recall(row: Mapping[str, Any], catalogue: Catalogue) -> Facts:
    """The facts of a record, under the configuration that they were recorded under.

    Raises KeyError, TypeError or ValueError for what is not a record.
    """
    fields = dict(row)
    for name in LABELS:
        if name in fields:
            fields[name] = DataClass.parse(fields[name])
    if "inflight" in fields:
        fields["inflight"] = catalogue.counts(fields["inflight"])
    return Facts(**fields)
