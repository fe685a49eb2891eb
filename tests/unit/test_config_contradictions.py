"""Rules that exclude each other are refused, each at its line and with its mend.

Each test adds something to the company of `clusters/example`, which is free of them.
"""

from pathlib import Path

import pytest

from orchestrator.config.load import load
from tests.configurations import company, line, problems

POOL = """\
pools:
  - name: extra
    cluster: {cluster}
    accelerator: {accelerator}
    min_replicas: 1
    max_replicas: 1
    provision_s: 60
    price: {price}
"""
MODEL = """\
models:
  - name: extra
    variants:
      - name: extra-fp16
        weights: org/m
        pools: [{pools}]
        max_model_len: 4096
        max_num_seqs: 8
"""
WORKLOAD = """\
workloads:
  - name: extra
    inherits: company
"""
AWAY = """\
    allowed_zones: [dresden, frankfurt, paris]
    burst:
      ttft_p95_s: 1
"""


def the_problem(tmp_path: Path, text: str, at: str) -> str:
    """The only one, which must be where the text has this part."""
    (problem,) = problems(company(tmp_path, text=text))
    assert problem.startswith(f"more.yaml:{line(text, at)}: ")
    return problem


def performance(accelerator: str) -> str:
    return (
        f"          - accelerator: {accelerator}\n"
        "            prefill_tokens_per_s: 1000\n            decode_tokens_per_s: 100\n"
        "            itl_s: 0.02\n            source: invented\n"
    )


@pytest.mark.parametrize(
    ("rules", "at", "mend"),
    [
        ("    preferred_zones: [berlin, paris]\n", "preferred", "add it to allowed_zones"),
        ("    preferred_zones: [moon]\n", "preferred", "'moon' is not defined"),
        (
            "    allowed_zones: [paris]\n    data_class: confidential\n",
            "data_class",
            "allow berlin or dresden or clinic or frankfurt",
        ),
        ("    jurisdictions: [AT, CH]\n", "jurisdictions", "they are under DE-BE, DE-SN"),
        (
            "    allowed_zones: [dresden]\n    certifications: [B3S, C5]\n",
            "certifications",
            "'dresden' lacks C5; allow another zone",
        ),
        (
            "    models: [coder]\n    allowed_zones: [frankfurt]\n    jurisdictions: [DE]\n"
            "    certifications: [HIPAA]\n",
            "certifications",
            "'frankfurt' lacks HIPAA",
        ),
        ("    models: [chat-small, phone]\n", "models", "no pool that runs 'phone' lies where"),
        (
            "    when_infeasible:\n      min_quality: 0.9\n    min_quality: 0.9\n",
            "  min_quality: 0.9\n    min",
            "not below min_quality, 0.9",
        ),
        (
            "    when_infeasible:\n      min_quality: 0.5\n",
            "min_quality",
            "without effect; lower it or leave it out",
        ),
        ("    markers: [salary, bonus, Salary]\n", "markers", "'Salary' is a marker already"),
    ],
)
def test_a_workload_that_contradicts_itself(tmp_path: Path, rules: str, at: str, mend: str) -> None:
    assert mend in the_problem(tmp_path, WORKLOAD + rules, at)


def test_a_class_that_no_zone_at_all_can_hold(tmp_path: Path) -> None:
    directory = company(tmp_path)
    zones = directory / "zones.yaml"
    zones.write_text(zones.read_text().replace("restricted", "confidential"))
    found = [p for p in problems(directory) if "passes the gateway" not in p]
    assert found
    for problem in found:
        assert "raise a zone's max_data_class to restricted" in problem
        # Those that inherit the class are told once each, where it stands.
        assert problem.startswith(("profiles.yaml:", "care.yaml:", "customers.yaml:"))


def test_more_quality_than_any_variant_has(tmp_path: Path) -> None:
    text = MODEL.format(pools="dresden-l40s") + "        quality: 0.7\n" + WORKLOAD
    rules = "    models: [extra]\n    min_quality: 0.8\n"
    assert "'extra-fp16', has 0.7: lower it" in the_problem(tmp_path, text + rules, "min_quality")


def test_one_of_several_models_that_is_not_good_enough(tmp_path: Path) -> None:
    text = MODEL.format(pools="dresden-l40s") + "        quality: 0.7\n" + WORKLOAD
    rules = "    min_quality: 0.8\n    models: [chat-small, extra]\n"
    problem = the_problem(tmp_path, text + rules, "models: [chat-small")
    assert "no variant of 'extra' is as good as min_quality; its best has 0.7" in problem


def test_a_model_that_only_burst_pools_run(tmp_path: Path) -> None:
    text = MODEL.format(pools="paris-l40s") + WORKLOAD + AWAY
    rules = (
        "      pools: [paris-l40s]\n    price_ceiling: {usd_per_gpu_hour: 3}\n"
        "    models: [chat-small, extra]\n"
    )
    problem = the_problem(tmp_path, text + rules, "models: [chat-small")
    assert "only burst pools run 'extra': paris-l40s" in problem


@pytest.mark.parametrize(
    ("rules", "at", "mend"),
    [
        ("      pools: [paris-l40s]\n", "burst:", "give price_ceiling.usd_per_gpu_hour"),
        (
            "      pools: [paris-l40s]\n    price_ceiling: {usd_per_gpu_hour: 2}\n",
            "pools",
            "costs 2.33 USD per GPU-hour for good, above the ceiling of 2; raise the ceiling",
        ),
        (
            "      pools: [paris-l40s]\n    price_ceiling: {usd_per_million_tokens: 0.01}\n",
            "pools",
            "USD per million tokens for good, above the ceiling of 0.01",
        ),
        (
            "      pools: [paris-l40s]\n    price_ceiling: {usd_per_gpu_hour: 3}\n"
            "    jurisdictions: [DE-SN]\n",
            "pools",
            "lies in zone 'paris', which is under FR; take the pool out",
        ),
        (
            "      pools: [paris-l40s]\n    price_ceiling: {usd_per_gpu_hour: 3}\n"
            "    certifications: [B3S]\n",
            "pools",
            "lies in zone 'paris', which lacks B3S",
        ),
        (
            "      pools: [paris-l40s]\n      schedule:\n"
            "        - {days: [mon], start: 08:00, end: 08:00}\n"
            "    price_ceiling: {usd_per_gpu_hour: 3}\n",
            "- {days",
            "begins and ends at 08:00; for a day write",
        ),
    ],
)
def test_a_burst_that_can_never_be(tmp_path: Path, rules: str, at: str, mend: str) -> None:
    assert mend in the_problem(tmp_path, WORKLOAD + AWAY + rules, at)


def test_hours_over_midnight_are_no_contradiction(tmp_path: Path) -> None:
    rules = (
        "      pools: [paris-l40s]\n      schedule:\n"
        "        - {days: [mon], start: 22:00, end: 06:30}\n"
        "    price_ceiling: {usd_per_gpu_hour: 3}\n"
    )
    workloads = load(company(tmp_path, text=WORKLOAD + AWAY + rules)).configuration.workloads
    (extra,) = [w for w in workloads if w.name == "extra"]
    assert extra.burst is not None
    (hours,) = extra.burst.schedule
    assert (hours.start.hour, hours.end.hour) == (22, 6)


TOKENS = "{tokens: {input_usd_per_million: 1, output_usd_per_million: 4}}"


@pytest.mark.parametrize(
    ("ceiling", "mend"),
    [
        ("usd_per_gpu_hour: 3", "charges by the token; give price_ceiling.usd_per_million_tokens"),
        ("usd_per_million_tokens: 2", "costs 4.00 USD per million tokens for good"),
    ],
)
def test_a_burst_to_an_endpoint_that_charges_by_the_token(
    tmp_path: Path, ceiling: str, mend: str
) -> None:
    pool = POOL.format(cluster="token-provider", accelerator="none", price=TOKENS)
    text = (
        f"{pool}{MODEL.format(pools='extra, dresden-l40s')}{WORKLOAD}    models: [extra]\n"
        "    data_class: public\n    allowed_zones: [dresden, token-provider]\n"
        f"    price_ceiling: {{{ceiling}}}\n"
        "    burst:\n      ttft_p95_s: 1\n      pools: [extra]\n"
    )
    assert mend in the_problem(tmp_path, text, "pools: [extra]")


def test_a_ceiling_by_the_token_where_nobody_knows_what_a_token_costs(tmp_path: Path) -> None:
    text = (
        f"{MODEL.format(pools='dresden-l40s, paris-l40s')}{WORKLOAD}{AWAY}"
        "      pools: [paris-l40s]\n    price_ceiling: {usd_per_million_tokens: 3}\n"
        "    models: [extra]\n"
    )
    problem = the_problem(tmp_path, text, "pools: [paris-l40s]")
    assert "give 'extra-fp16' its performance on L40S" in problem


def test_a_price_by_the_token_on_a_cluster_of_ours(tmp_path: Path) -> None:
    text = POOL.format(cluster="dresden", accelerator="L40S", price=TOKENS)
    assert "costs GPU-hours; give a price for those" in the_problem(tmp_path, text, "tokens")


@pytest.mark.parametrize(
    ("accelerators", "mend"),
    [
        (["L40S", "L40S"], "L40S has its figures above already; keep one"),
        (["L40S", "A100"], "no pool of 'extra-fp16' has A100; they have: L40S"),
    ],
)
def test_performance_that_nothing_can_use(
    tmp_path: Path, accelerators: list[str], mend: str
) -> None:
    figures = "".join(performance(a) for a in accelerators)
    text = f"{MODEL.format(pools='dresden-l40s')}        performance:\n{figures}"
    assert mend in the_problem(tmp_path, text, f"accelerator: {accelerators[-1]}")


def test_another_name_for_what_we_serve_under_its_own(tmp_path: Path) -> None:
    text = MODEL.format(pools="dresden-l40s") + "        served_name: gpt\n"
    assert "leave served_name out, or give a lora" in the_problem(tmp_path, text, "served_name")


def test_a_lora_has_another_name(tmp_path: Path) -> None:
    text = MODEL.format(pools="dresden-l40s") + "        served_name: a\n        lora: org/a\n"
    assert load(company(tmp_path, text=text)).configuration.models[-1].name == "extra"


def test_a_budget_of_nothing_says_how_to_spend_nothing(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, WORKLOAD + "    budget: {usd_per_day: 0}\n", "usd_per_day")
    assert "a workload that may spend nothing has no `burst`" in problem


def test_a_marker_that_would_be_found_everywhere(tmp_path: Path) -> None:
    problem = the_problem(tmp_path, WORKLOAD + "    markers: [he]\n", "markers")
    assert "at least 3 characters" in problem


@pytest.mark.parametrize("timezone", ["Europe/Bonn", "Europe", "''", "../etc/passwd", "a:b", "É"])
def test_hours_in_a_time_zone_that_does_not_exist(tmp_path: Path, timezone: str) -> None:
    rules = (
        "      pools: [paris-l40s]\n      schedule:\n        - days: [mon]\n"
        f"          start: 08:00\n          end: 09:00\n          timezone: {timezone}\n"
    )
    problem = the_problem(tmp_path, WORKLOAD + AWAY + rules, "timezone")
    assert "write one such as Europe/Berlin" in problem
