"""Traces that are drawn: the same from the same seed, in order, at the rate that was asked for."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.traces import servegen
from orchestrator.traces.requests import Requests, TraceError, read_blocks
from orchestrator.traces.synth import (
    Client,
    Family,
    LogNormal,
    Window,
    assigned,
    scaled,
    steady,
    synthesize,
)
from orchestrator.traces.write import blocks, write_file

LENGTHS = LogNormal(1000, 4000, 100, 400)
DATA = Path(__file__).parents[3] / "shared" / "data" / "traces"
RATES, TOKENS = (DATA / f"servegen_client_{name}.csv.gz" for name in ("rates", "tokens"))

windows = st.builds(
    Window,
    rate_rps=st.floats(0, 3),
    family=st.sampled_from(["Gamma", "Weibull"]),
    cv=st.floats(0.01, 300),
    lengths=st.just(LENGTHS),
)
some_clients = st.lists(
    st.builds(
        Client,
        windows=st.dictionaries(st.integers(0, 3), windows, max_size=4),
        workloads=st.sampled_from([(("a", 0.5), ("b", 0.5)), (("a", 1.0),)]),
    ),
    max_size=4,
)
Row = tuple[float, int, int, str]


def rows(requests: list[Requests]) -> list[Row]:
    return [
        row
        for r in requests
        for row in zip(
            r.arrival_s.tolist(),
            r.prompt_tokens.tolist(),
            r.output_tokens.tolist(),
            r.workload or [""] * len(r),
            strict=True,
        )
    ]


@given(some_clients, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_same_seed_draws_the_same_trace_in_order(clients: list[Client], seed: int) -> None:
    found = rows(list(synthesize(clients, 0, 2400, seed)))
    assert found == rows(list(synthesize(clients, 0, 2400, seed)))
    assert all(a[0] <= b[0] for a, b in pairwise(found))
    assert all(0 <= r[0] < 2400 and r[1] >= 1 and r[2] >= 1 for r in found)


@given(some_clients, st.floats(0, 1200), st.floats(1201, 2400))
@settings(max_examples=40, deadline=None)
def test_a_stretch_is_what_the_whole_trace_has_there(
    clients: list[Client], from_s: float, to_s: float
) -> None:
    whole = rows(list(synthesize(clients, 0, 2400, 1)))
    stretch = rows(list(synthesize(clients, from_s, to_s, 1)))
    expected = [r for r in whole if from_s <= r[0] < to_s]
    assert [r[1:] for r in stretch] == [r[1:] for r in expected]
    assert [r[0] + from_s for r in stretch] == pytest.approx([r[0] for r in expected])


@pytest.mark.parametrize("family", ["Gamma", "Weibull"])
@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_the_rate_and_the_burstiness_are_those_asked_for(family: Family, cv: float) -> None:
    client = Client({n: Window(20, family, cv, LENGTHS) for n in range(20)})
    at_s = np.concatenate([b.arrival_s for b in synthesize([client], 0, 12_000, 7)])
    gaps_s = np.diff(at_s)
    assert len(at_s) / 12_000 == pytest.approx(20, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)


def test_a_day_keeps_its_mean_and_peaks_in_the_afternoon() -> None:
    client = steady(2, 1, LENGTHS, 86_400, daily=True)
    at_s = np.concatenate([b.arrival_s for b in synthesize([client], 0, 86_400, 7)])
    by_hour = np.bincount((at_s // 3600).astype(int), minlength=24)
    assert len(at_s) / 86_400 == pytest.approx(2, rel=0.05)
    assert by_hour[13:15].min() > 8 * by_hour[1:3].max()


@given(some_clients, st.dictionaries(st.sampled_from("xyz"), st.floats(0.1, 1), min_size=1))
@settings(max_examples=40, deadline=None)
def test_every_client_gets_one_of_the_workloads(
    clients: list[Client], shares: dict[str, float]
) -> None:
    placed = assigned(clients, shares, 0, 2400)
    assert [c.windows for c in placed] == [c.windows for c in clients]
    assert all(len(c.workloads) == 1 and c.workloads[0][0] in shares for c in placed)
    assert placed == assigned(clients, shares, 0, 2400)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**9).map(lambda us: us / 1e6),
            st.integers(0, 10**6),
            st.integers(0, 10**6),
            st.text(st.characters(exclude_categories=["Cs", "Cc"])),
        ),
        min_size=1,
    ).map(sorted),
    st.sampled_from([".csv", ".csv.gz"]),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, given_rows: list[Row], suffix: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("trace") / f"trace{suffix}"
    assert write_file(path, blocks(given_rows, "workload", size)) == len(given_rows)
    assert rows(list(read_blocks(path, rows=size))) == given_rows


HEAD = "model,client,window_start_s,rate_rps,iat_cv,iat_dist\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model,client\n", 1),
        (HEAD, 1),
        (HEAD + "other,0,0,1,1,Gamma\n", 1),
        (HEAD + "m,0,0,1,1,Gamma\nm,0,600,x,1,Gamma\n", 3),
        (HEAD + "m,0,300,1,1,Gamma\n", 2),
        (HEAD + "m,0,0,1,1,Pareto\n", 2),
        (HEAD + "m,0,0,-1,1,Gamma\n", 2),
    ],
)
def test_a_fault_in_the_rates_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=rf"{path}:{line}: "):
        servegen.clients(path, path, "m")


@pytest.mark.skipif(not RATES.exists(), reason="the public data is not there")
def test_clients_of_a_real_service_make_the_rate_and_the_shares_asked_for() -> None:
    clients = servegen.clients(RATES, TOKENS, "deepseek-r1")
    shares = {"a": 0.6, "b": 0.4}
    clients = assigned(scaled(clients, 10, 0, 43_200), shares, 0, 43_200)
    found = rows(list(synthesize(clients, 0, 43_200, 3)))
    assert len(found) / 43_200 == pytest.approx(10, rel=0.05)
    assert sum(r[3] == "a" for r in found) / len(found) == pytest.approx(0.6, abs=0.05)
