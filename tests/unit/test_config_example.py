"""The example company, the reference and the schema say the same as the specs."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.config.document import EXAMPLE as SMALL
from orchestrator.config.document import file_schema, markdown
from orchestrator.config.load import load
from orchestrator.config.reading import Reading
from orchestrator.config.spec import Configuration
from orchestrator.signals.prices import read_feed
from tests.configurations import CLUSTERS, EXAMPLE

FILES = [
    f
    for directory in (EXAMPLE, CLUSTERS / "local", CLUSTERS / "simulated")
    for f in sorted(directory.glob("*.yaml"))
    if f.stem not in ("keys", "probes")
]
SCHEMA = Configuration.model_json_schema()


def read(file: Path) -> dict[str, Any]:
    """The sections as an editor sees them: without dates."""
    reading = Reading(None)
    reading.read(file)
    assert not reading.problems
    document: dict[str, Any] = json.loads(json.dumps(reading.document, default=str))
    return document


def test_the_example_is_valid_and_of_the_size_it_claims() -> None:
    c = load(EXAMPLE).configuration
    assert (len(c.models), len(c.workloads)) == (9, 20)
    assert sum(v.lora is not None for m in c.models for v in m.variants) == 2
    assert {p.capacity_type for p in c.pools} == {"reserved", "on-demand", "spot"}
    assert {v.quantization for m in c.models for v in m.variants} >= {"none", "fp8", "awq"}


def test_the_price_feeds_of_the_example_can_be_read() -> None:
    for feed in load(EXAMPLE).configuration.price_feeds:
        assert feed.file is None or read_feed(Path(feed.file))


def test_the_example_uses_every_field_of_the_language() -> None:
    used: set[tuple[str, str]] = set()

    def visit(spec: str, node: dict[str, Any], value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                visit(spec, node, item)
            return
        if not isinstance(value, dict):
            return
        for option in [node, node.get("items", {}), *node.get("anyOf", [])]:
            if "$ref" in option:
                spec = option["$ref"].removeprefix("#/$defs/")
                node = SCHEMA["$defs"][spec]
        for name, inside in value.items():
            if name in node.get("properties", {}):
                used.add((spec, name))
                visit(spec, node["properties"][name], inside)

    for file in EXAMPLE.glob("*.yaml"):
        visit("Configuration", SCHEMA, read(file))
    specs = {"Configuration": SCHEMA, **SCHEMA["$defs"]}
    there = {(s, f) for s, node in specs.items() for f in node.get("properties", {})}
    # A profile's fields are those of a workload.
    assert {(s, f) for s, f in there - used if s != "Profile"} == set()


def test_every_field_and_every_spec_is_described() -> None:
    for name, spec in SCHEMA["$defs"].items():
        if "properties" in spec:
            assert spec.get("description"), f"{name} needs a docstring"
            for field, node in spec["properties"].items():
                assert node.get("description"), f"{name}.{field} needs a description"


@pytest.mark.parametrize(
    ("file", "generated"), [("README.md", markdown), ("schema.json", file_schema)]
)
def test_what_is_generated_is_up_to_date(file: str, generated: Any) -> None:
    assert (CLUSTERS / file).read_text() == generated(), "run `make docs`"


def test_the_small_example_of_the_reference_is_valid(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(SMALL)
    assert len(load(tmp_path).configuration.workloads) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_editors_find_the_schema_and_no_fault(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((file.parent / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read(file), schema)


def test_editors_find_a_field_that_does_not_exist() -> None:
    document = yaml.safe_load("workloads: [{name: a, prioritty: 3}]")
    with pytest.raises(jsonschema.ValidationError, match="prioritty"):
        jsonschema.validate(document, json.loads(file_schema()))
