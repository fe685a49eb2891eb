"""The configuration language, described from its specs: a reference to read, a schema for editors.

Pure: the same specs give the same text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from orchestrator.config.data_class import DataClass
from orchestrator.config.inherit import INHERITABLE
from orchestrator.config.spec import Configuration, Workload
from orchestrator.config.spec.base import Certification, HttpUrl, Jurisdiction, Name

INTRODUCTION = """\
# The configuration language

A configuration is a directory of YAML files. Each file holds any of the sections below; a section
that is a list may go on in another file, so one file will do for a laptop, and a company divides
them as it likes: by topic, by team, by site. Files in folders below are not read, nor is
`probes.yaml`. [local](local) is what `make run` starts; [example](example) is a company with two
sites, an edge box and three clouds, and uses every field there is;
[simulated](simulated) is a small one for `orchestrator simulate`.

```
orchestrator validate DIRECTORY
```

reads all of it and prints every problem as `path:line: message`, with the mend in the message:

```
workloads.yaml:9: workloads[0].slo.ttft_p95: unknown field; did you mean 'ttft_p95_s'?
```

**Version.** The first 12 hex digits of a hash over the files. Every decision names it. `keys.yaml`
is left out of it, and taken while the stack runs.

**Paths.** A `weights` or `lora` that begins with `./` or `../`, and a price feed's `file`, start at
the folder of the file that names them. `${ORCHESTRATOR_STATE}` in them stands for the folder where
the machine keeps what is not configuration: the environment variable of this name, else
`.orchestrator`.

**Inheritance.** A workload `inherits` from a profile, and a profile from another. What an heir
leaves out comes from its profile, then from that one's, then from the default below. What it sets
replaces the inherited field whole: lists are not joined, and `slo: {ttft_p95_s: 1}` has no
`itl_p95_s`, whatever the profile says. What is wrong in an inherited value is reported at the
profile's line.

**YAML.** A file is one document of at most 2 MiB, without anchors, aliases, tags and merge keys;
no key stands twice in a mapping. A name has up to 63 lower-case letters, digits, `.`, `_` and `-`;
it begins with a letter or a digit. Units are part of the fields' names: `_s` is seconds, `usd` US
dollars.

**Editors.** `# yaml-language-server: $schema=../schema.json` as first line of a file gives
completion and checks as you type. What one file says of another is checked by `validate` alone.
"""

EXAMPLE = """\
zones:
  - name: onprem
    jurisdiction: DE
    max_data_class: restricted
clusters:
  - name: onprem
    zone: onprem
    kind: ray
    url: http://127.0.0.1:8001
    dashboard_url: http://127.0.0.1:8265
pools:
  - name: onprem-l40s
    cluster: onprem
    accelerator: L40S
    min_replicas: 1
    max_replicas: 2
    provision_s: 90
    price:
      fixed_usd_per_gpu_hour: 0.6
models:
  - name: chat
    variants:
      - name: chat-fp8
        weights: meta-llama/Llama-3.1-8B-Instruct
        quantization: fp8
        pools: [onprem-l40s]
        max_model_len: 16384
        max_num_seqs: 64
profiles:
  - name: everybody
    models: [chat]
    allowed_zones: [onprem]
    slo:
      ttft_p95_s: 2
workloads:
  - name: records # of no class, and so restricted
    inherits: everybody
  - name: intranet
    inherits: everybody
    data_class: internal
gateway:
  url: http://127.0.0.1:8000
  cluster: onprem
controller:
  url: http://127.0.0.1:8100
"""

WORDS = {
    TypeAdapter(kind).json_schema()["pattern"]: word
    for kind, word in (
        (Name, "name"),
        (HttpUrl, "URL"),
        (Jurisdiction, "country"),
        (Certification, "text"),
    )
}
FORMATS = {"time": "time of day", "date-time": "date and time"}
BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}


def markdown() -> str:
    """The reference: a table for each spec, in the order in which `Configuration` leads to them."""
    schema = Configuration.model_json_schema(schema_generator=_Schema)
    parts = [INTRODUCTION, f"## A small configuration\n\n```yaml\n{EXAMPLE}```\n"]
    parts.append("## Sections\n\n" + _table(schema))
    for name in _order(schema):
        spec = schema["$defs"][name]
        heading = f"## {name}\n\n{spec['description']}\n"
        parts.append(f"{heading}\n{_table(spec, leave_out=_of_workloads(name))}")
    return "\n".join(parts)


def file_schema() -> str:
    """JSON Schema of one file: every section may stand in another file, and what a workload must
    have may be inherited."""
    schema = Configuration.model_json_schema(schema_generator=_Schema)
    del schema["required"]
    schema["$defs"]["Workload"]["required"] = ["name"]
    for node in _nodes(schema):
        # Editors take this format for RFC 3339, which wants seconds and a time zone.
        if node.get("format") == "time":
            del node["format"]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


class _Schema(GenerateJsonSchema):
    """Writes data classes by their labels."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        inner = schema["schema"]
        if inner["type"] == "enum" and inner["cls"] is DataClass:
            return {"type": "string", "enum": [c.label for c in DataClass]}
        return super().function_before_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        return dft.label if isinstance(dft, DataClass) else super().encode_default(dft)


def _order(schema: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}

    def follow(name: str, spec: Mapping[str, Any]) -> None:
        leave_out = _of_workloads(name)
        for field, value in spec["properties"].items():
            if field in leave_out:
                continue
            for node in _nodes(value):
                reference = _reference(node)
                if reference and reference not in found:
                    found[reference] = None
                    follow(reference, schema["$defs"][reference])

    follow("Configuration", schema)
    return list(found)


def _of_workloads(spec: str) -> frozenset[str]:
    """Fields of a profile, which are described with the workload's."""
    return frozenset(INHERITABLE) if spec == "Profile" else frozenset()


def _table(spec: Mapping[str, Any], leave_out: frozenset[str] = frozenset()) -> str:
    required = spec.get("required", [])
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in spec["properties"].items():
        if name in leave_out:
            continue
        default = "required" if name in required else _default(field)
        rows.append(f"| `{name}` | {_type(field)} | {default} | {field['description']} |")
    if leave_out:
        link = f"[{Workload.__name__}](#{Workload.__name__.lower()})"
        rows.append(f"| any other | as in {link} | | field of a workload |")
    return "\n".join(rows) + "\n"


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value in (None, [], {}) or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _type(field: Mapping[str, Any]) -> str:
    reference = _reference(field)
    if reference:
        return f"[{reference}](#{reference.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(f) for f in field["anyOf"] if f.get("type") != "null")
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        least, most = field.get("minItems"), field.get("maxItems")
        count = f", {least} of them" if least and least == most else ", at least one"
        return f"list of {_type(field['items'])}{count if least else ''}"
    if field["type"] == "object":
        return f"mapping of names to {_type(field['additionalProperties'])}"
    if field["type"] == "boolean":
        return "true or false"
    if field["type"] == "string":
        word = WORDS.get(field.get("pattern", "")) or FORMATS.get(field.get("format", ""), "text")
        return (
            f"{word} of {field['minLength']} characters or more" if "minLength" in field else word
        )
    bounds = " and ".join(f"{sign} {field[k]:g}" for k, sign in BOUNDS.items() if k in field)
    return f"{field['type']} {bounds}".rstrip()


def _reference(node: Mapping[str, Any]) -> str | None:
    return str(node["$ref"]).removeprefix("#/$defs/") if "$ref" in node else None


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within, itself first."""
    if isinstance(value, dict):
        yield value
    for inside in value.values() if isinstance(value, dict) else value:
        if isinstance(inside, dict | list):
            yield from _nodes(inside)
