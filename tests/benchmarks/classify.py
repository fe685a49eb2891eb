"""`python -m tests.benchmarks.classify`: how fast the classifier reads, what it finds and misses.

Speed on clean English, on real prompts and on hostile bodies; recall and precision by type on
labelled text; the same values written in other ways; false alarms on harmless prompts. What needs
labelled data is left out where there is none: `ORCHESTRATOR_DATA` says where it lies.
"""

import argparse
import base64
import csv
import gzip
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.classify import Classifier
from orchestrator.classify.findings import Finding
from orchestrator.classify.scanner import Scanner
from orchestrator.config.spec import ClassifierSpec

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("ORCHESTRATOR_DATA", SHARED))
SPANS, SENSITIVE = "pii/pii_spans.csv.gz", "pii/sensitivity_prompts.csv.gz"
HARMLESS = {
    "routing/routellm_weak_strong.csv.gz": ["prompt"],
    "routing/mt_bench_scores.csv.gz": ["prompt"],
    "routing/zeroeval_prompts.csv.gz": ["prompt"],
    "cache/equivalence_pairs.csv.gz": ["text_a", "text_b"],
}

FORMED = {
    "CREDIT_CARD": "payment_card",
    "IBAN_CODE": "iban",
    "IBAN": "iban",
    "US_SSN": "us_ssn",
    "SSN": "us_ssn",
    "EMAIL_ADDRESS": "email",
    "EMAIL": "email",
    "PHONE_NUMBER": "phone",
    "PHONE": "phone",
    "IP_ADDRESS": "ip_address",
    "AADHAR": "in_aadhaar",
    "PAN": "in_pan",
}
"""Labels of values that have a checksum or a fixed form, and what they should be found as."""
LOOSE = {
    "PASSWORD": "password",
    "PERSON": "person_name",
    "ADDRESS": "postal_address",
    "STREET_ADDRESS": "postal_address",
    "DATE_TIME": "date_of_birth",
    "US_DRIVER_LICENSE": "document_number",
    "DRIVER_LICENSE": "document_number",
    "PASSPORT": "document_number",
    "ACCOUNT_NUMBER": "document_number",
    "ACCOUNT": "document_number",
    "PATIENT_ID": "document_number",
    "TAX_ID": "document_number",
}
EXPECTED = FORMED | LOOSE

WORDS = {str(i): word for i, word in enumerate(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
)}  # fmt: skip
OTHERWISE: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "full width": lambda v: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in v),
    "Arabic digits": lambda v: "".join(chr(0x660 + int(c)) if c in WORDS else c for c in v),
    "spaced": " ".join,
    "dotted": ".".join,
    "U+2011": lambda v: v.replace(" ", "\u2011").replace("-", "\u2011"),
    "U+2011 by fours": lambda v: (
        "\u2011".join(v[i : i + 4] for i in range(0, len(v), 4))
        if v.isdigit() or (v.isalnum() and v[2:4].isdigit())
        else v.replace("-", "\u2011")
    ),
    "zero width": "\u200b".join,
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64, URL-safe": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "hex": lambda v: v.encode().hex(),
    "percent": lambda v: "".join(f"%{b:02X}" for b in v.encode()),
    "digits as words": lambda v: " ".join(WORDS.get(c, c) for c in v),
}

COMMON = (
    "the of and to in is that it was for on are as with his they be at one have this from or had by"
    " hot word but what some we can out other were all there when up use your how said an each she"
)


def rows(file: str) -> list[dict[str, str]]:
    with gzip.open(DATA / file, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def harmless() -> Iterator[tuple[str, str]]:
    """Each distinct prompt of each file."""
    for file, columns in HARMLESS.items():
        if (DATA / file).exists():
            texts = dict.fromkeys(row[column] for row in rows(file) for column in columns)
            yield from ((file, text) for text in texts)


def chat(text: str) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]}


def speed() -> dict[str, dict[str, float]]:
    """Throughput, and the time for a prompt of 4 KB that was never seen before."""
    draw = random.Random(1)
    english = " ".join(draw.choices(COMMON.split(), k=250_000))
    texts = {"clean English": english}
    scanner = Scanner()
    real = [text for _, text in harmless() if text.isascii()]
    if real:
        texts["real prompts"] = "\n\n".join(real)
        texts["real prompts without findings"] = "\n\n".join(
            text for text in real if not scanner.find(text)
        )
    classifier = Classifier(ClassifierSpec(budget_s=600), {"w": ["Project Falcon"]})
    figures = {}
    for name, text in texts.items():
        prompts = [chat(text[at : at + 4096]) for at in range(0, len(text) - 4096, 4096)]
        times_s = sorted(_timed(lambda p=prompt: classifier.classify("w", p)) for prompt in prompts)
        whole_s = statistics.median(
            _timed(lambda t=text: classifier.classify("w", chat(t))) for _ in range(5)
        )
        figures[name] = {
            "mb": len(text) / 1e6,
            "mb_per_s": len(text) / 1e6 / whole_s,
            "p50_4kb_us": statistics.median(times_s) * 1e6,
            "p95_4kb_us": times_s[int(0.95 * len(times_s))] * 1e6,
        }
    return figures


def _timed(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def hostile(size: int = 4 << 20) -> dict[str, dict[str, float | str]]:
    """Bodies of 4 MB made to take long, under the default budget."""
    draw = random.Random(2)

    def fill(unit: str) -> dict[str, Any]:
        return chat((unit * (size // len(unit) + 1))[:size])

    twice = base64.b64encode(base64.b64encode(os.urandom(size // 2))).decode()
    bodies: dict[str, object] = {
        "one digit": fill("4"),
        "card numbers": fill("4111111111111112 "),
        "digits": chat("".join(draw.choices("0123456789", k=size))),
        "groups of digits": fill("1 22 333 4444 "),
        "words of digits": fill("four one double nine "),
        "mailboxes": fill("a@b.co "),
        "base64 in base64": fill(twice),
        "hex": fill("34313131"),
        "percent": fill("%34a"),
        "JSON escapes": fill("\\u0034"),
        "names": fill("Mr. Aa Bb name is "),
        "addresses": fill("12 Aa Bb "),
        "zero width": fill("4\u200b"),
        "expanding ligatures": fill("\ufdfa"),
        "random Unicode": chat("".join(map(chr, draw.choices(range(0x80, 0xD800), k=size // 3)))),
        "a million strings": {"prompt": ["a1"] * 1_000_000},
        "a million lists": {"prompt": [[] for _ in range(1_000_000)]},
        "token ids": {"prompt": list(range(1_000_000))},
    }  # fmt: skip
    classifier = Classifier(ClassifierSpec(), {"w": ["Project Falcon"]})
    figures: dict[str, dict[str, float | str]] = {}
    for name, body in bodies.items():
        start_s = time.perf_counter()
        result = classifier.classify("w", body)
        elapsed_s = time.perf_counter() - start_s
        outcome = result.failed or result.data_class.label
        figures[name] = {"ms": elapsed_s * 1000, "outcome": outcome}
    return figures


def _overlaps(finding: Finding, span: dict[str, Any]) -> bool:
    return finding.start < span["end"] and finding.end > span["start"]


def spans() -> dict[str, dict[str, dict[str, float]]]:
    """Recall by label, precision by type of finding: of those on a label of the same type, and of
    those on any label."""
    scanner = Scanner()
    labels, hits, seen = Counter[str](), Counter[str](), Counter[str]()
    found, right, on_any = Counter[str](), Counter[str](), Counter[str]()
    for row in rows(SPANS):
        marked = json.loads(row["spans_json"])
        findings = scanner.find(row["text"])
        for span in marked:
            there = {f.type.value for f in findings if _overlaps(f, span)}
            labels[span["type"]] += 1
            hits[span["type"]] += EXPECTED.get(span["type"]) in there
            seen[span["type"]] += bool(there)
        for finding in findings:
            under = [EXPECTED.get(s["type"]) for s in marked if _overlaps(finding, s)]
            found[finding.type.value] += 1
            right[finding.type.value] += finding.type.value in under
            on_any[finding.type.value] += bool(under)
    return {
        "recall": {
            label: {
                "labels": count,
                "of_its_type": hits[label] / count,
                "of_any_type": seen[label] / count,
            }
            for label, count in sorted(labels.items())
        },
        "precision": {
            type: {
                "found": count,
                "on_its_label": right[type] / count,
                "on_any_label": on_any[type] / count,
            }
            for type, count in sorted(found.items())
        },
    }


def written_otherwise() -> dict[str, dict[str, float]]:
    """Recall of formed values by how they are written; of those found as they are."""
    scanner = Scanner()
    total, hits = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows(SPANS):
        text, plain = row["text"], scanner.find(row["text"])
        for span in json.loads(row["spans_json"]):
            type = FORMED.get(span["type"])
            if not any(f.type.value == type and _overlaps(f, span) for f in plain):
                continue
            value = text[span["start"] : span["end"]]
            for name, write in OTHERWISE.items():
                written = write(value)
                place = {"start": span["start"], "end": span["start"] + len(written)}
                findings = scanner.find(text[: span["start"]] + written + text[span["end"] :])
                total[name, str(type)] += 1
                hits[name, str(type)] += any(
                    f.type.value == type and _overlaps(f, place) for f in findings
                )
    types = sorted({type for _, type in total})
    return {n: {t: hits[n, t] / total[n, t] for t in types} for n in OTHERWISE} | {
        "values": {type: total["as it is", type] for type in types}
    }


def false_alarms() -> dict[str, dict[str, Any]]:
    scanner = Scanner()
    prompts, raised = Counter[str](), Counter[str]()
    by: dict[str, Counter[str]] = {file: Counter() for file in HARMLESS}
    for file, text in harmless():
        types = {finding.type.value for finding in scanner.find(text)}
        prompts[file] += 1
        raised[file] += bool(types)
        by[file].update(types)
    return {
        file: {"prompts": n, "raised": raised[file], "share": raised[file] / n, "types": by[file]}
        for file, n in prompts.items()
    }


def sensitive() -> dict[str, dict[str, int]]:
    """Prompts that speak of sensitive matters, by label, and how many hold something to find."""
    scanner = Scanner()
    prompts, raised = Counter[str](), Counter[str]()
    for row in rows(SENSITIVE):
        prompts[row["label"]] += 1
        raised[row["label"]] += bool(scanner.find(row["prompt"]))
    return {label: {"prompts": n, "raised": raised[label]} for label, n in prompts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures for machines")
    options = parser.parse_args()
    out = Console(stderr=options.json, width=120)
    report: dict[str, Any] = {"speed": speed(), "hostile": hostile()}
    for name, file, measure in (
        ("spans", SPANS, spans),
        ("written_otherwise", SPANS, written_otherwise),
        ("false_alarms", next(iter(HARMLESS)), false_alarms),
        ("sensitive", SENSITIVE, sensitive),
    ):
        if (DATA / file).exists():
            report[name] = measure()
        else:
            out.print(f"{name}: left out, for {DATA / file} does not exist")
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for title, figures in report.items():
        if title == "spans":
            for part, rows_ in figures.items():
                _print(out, part, rows_)
        else:
            _print(out, title.replace("_", " "), figures)


def _print(out: Console, title: str, figures: dict[str, dict[str, Any]]) -> None:
    columns = list(next(iter(figures.values())))
    table = Table("", *columns, title=title)
    for name, row in figures.items():
        table.add_row(name, *(_cell(row[column]) for column in columns))
    out.print(table)


def _cell(value: object) -> str:
    if isinstance(value, Counter):
        return ", ".join(f"{type} {count}" for type, count in value.most_common())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
