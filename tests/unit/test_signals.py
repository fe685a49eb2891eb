"""What engines and GPU exporters say, and that what they do not say is not zero."""

import pytest

from orchestrator.signals.dcgm import parse as gpus
from orchestrator.signals.engine import EngineMetrics, loaded_adapters, parse
from orchestrator.signals.reading import Reading, fresh
from tests.zombies.expositions import BLANK, Card, Vllm, dcgm, models

LEAST = 'vllm:num_requests_running{engine="0"} 2\nvllm:num_requests_waiting{engine="0"} 1\n'


def test_an_engines_queue_counters_and_start_are_read() -> None:
    engine = Vllm(running=2, waiting=1, aborted=1)
    engine.answer(requests=3, prompt=100, generated=10)
    assert parse(engine.text()) == EngineMetrics(
        running=2,
        waiting=1,
        kv_usage=0.062,
        success=4,
        prompt_tokens=300,
        generation_tokens=30,
        started_s=1_700_000_000,
    )


def test_what_an_engine_does_not_say_is_none() -> None:
    assert parse(LEAST) == EngineMetrics(running=2, waiting=1)
    assert parse(LEAST + "vllm:kv_cache_usage_perc NaN\n").kv_usage is None


def test_without_queue_metrics_it_is_no_engine() -> None:
    with pytest.raises(ValueError, match="num_requests_waiting"):
        parse('vllm:num_requests_running{engine="0"} 2\n')
    with pytest.raises(ValueError, match="num_requests_running"):
        parse("go_goroutines 12\n")


def test_engines_of_one_exposition_are_summed_and_the_fullest_cache_counts() -> None:
    text = LEAST + LEAST.replace('"0"', '"1"')
    text += 'vllm:kv_cache_usage_perc{engine="0"} 0.2\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n'
    assert (parse(text).running, parse(text).kv_usage) == (4, 0.9)


def test_without_a_process_start_that_of_the_counters_tells_engines_apart() -> None:
    created = 'vllm:prompt_tokens_created{engine="0"} '
    first, second = parse(f"{LEAST}{created}1.7e+09\n"), parse(f"{LEAST}{created}1.8e+09\n")
    assert (first.started_s, second.started_s) == (1.7e9, 1.8e9)
    assert first.counters != second.counters


def test_the_newest_set_of_adapters_counts() -> None:
    engine = Vllm(infos=[("old", "", 10.0), ("law,tax", "old", 30.0), ("", "old", 20.0)])
    assert parse(engine.text()).adapters == {"law", "tax", "old"}


def test_adapters_are_the_models_with_a_parent() -> None:
    assert loaded_adapters(models("base", "law", "tax")) == {"law", "tax"}
    for text in ("not JSON", "[]", '{"data": [1]}', '{"data": null}', "{}"):
        with pytest.raises(ValueError, match=r"."):
            loaded_adapters(text)


def test_a_gpu_is_read_with_its_pod() -> None:
    card = Card(2, util=97, used=41_000, xid=31, power=300.5, pods=[("ml", "a-0")])
    (gpu,) = gpus(dcgm(card))
    assert gpu.name == card.name
    assert (gpu.index, gpu.host, gpu.model) == ("2", "gpu-node-1", "NVIDIA L40S")
    assert (gpu.utilization, gpu.memory_used_mib, gpu.memory_free_mib) == (0.97, 41_000, 5_068)
    assert (gpu.power_w, gpu.temperature_c, gpu.xid) == (300.5, 31, 31)
    assert gpu.pods == {"ml/a-0"}


def test_what_dcgm_leaves_blank_or_out_is_none() -> None:
    blank = Card(util=BLANK, used=None, power=BLANK, temperature=None, xid=None, active=7)
    (gpu,) = gpus(dcgm(blank))
    assert (gpu.utilization, gpu.memory_used_mib, gpu.power_w, gpu.xid) == (None,) * 4
    assert gpu.temperature_c is None
    assert gpus(dcgm(Card(util=101)))[0].utilization is None


def test_slices_of_a_gpu_are_told_apart_and_pods_that_share_one_are_not() -> None:
    slices = [Card(mig=("1g.10gb", str(i)), util=None, active=0.1 * i, used=9) for i in (1, 2)]
    shared = Card(4, pods=[("a", "x"), ("b", "y")], used=800)
    found = gpus(dcgm(*slices, shared))
    assert [g.utilization for g in found if g.instance] == [0.1, 0.2]
    assert [g.share for g in found if g.instance] == [1 / 7, 1 / 7]
    (whole,) = [g for g in found if g.instance is None]
    assert (whole.pods, whole.memory_used_mib, whole.share) == ({"a/x", "b/y"}, 800, 1)


def test_without_gpus_it_is_no_exporter() -> None:
    with pytest.raises(ValueError, match="DCGM_FI_DEV_GPU_UTIL"):
        gpus("go_goroutines 12\n")


def test_what_was_heard_long_ago_or_will_be_heard_is_not_known() -> None:
    reading = Reading(0, at_s=100)
    assert fresh(reading, 30, 130) == 0
    assert fresh(reading, 30, 131) is None
    assert fresh(reading, 30, 99) is None
    assert fresh(None, 30, 100) is None
