"""GPUs that are busy with nothing, and those that only look so."""

from collections.abc import Iterator
from dataclasses import replace

from tests.zombies.expositions import BLANK, Card, dcgm
from tests.zombies.labelled import lookalike, minutes, zombie
from tests.zombies.world import START_S, Frame

GHOST = Card(util=100, used=0, power=71.2, temperature=38)
WORKING = Card(util=98, used=41_200, power=301, temperature=64)
POD = [("inference", "cloud-gpu-m-fp16-raycluster-x8k2p-worker-7hq4z")]


def node(*cards: Card) -> Frame:
    return Frame(gpus=dcgm(*cards))


def ghost(card: Card) -> str:
    return f"ghost:{card.name}"


@zombie(ghost(GHOST))
def a_gpu_at_100_percent_without_a_byte() -> Iterator[Frame]:
    for _ in minutes(8):
        yield node(GHOST)


XID = replace(GHOST, index=2, xid=79, pods=[], power=68)


@zombie(ghost(XID))
def a_gpu_that_hangs_after_an_error_and_whose_pod_is_gone() -> Iterator[Frame]:
    for t in minutes(12):
        alive = replace(WORKING, index=2, pods=POD)
        yield node(alive if t < 180 else XID)


SLICE = Card(
    1,
    "NVIDIA A100-SXM4-80GB",
    mig=("3g.40gb", "2"),
    util=None,
    active=1.0,
    used=37,
    total=40192,
    pods=[],
)


@zombie(ghost(SLICE))
def a_slice_of_a_partitioned_gpu() -> Iterator[Frame]:
    other = replace(SLICE, mig=("3g.40gb", "1"), active=0.7, used=33_100, pods=POD)
    whole = replace(SLICE, mig=None, util=BLANK, active=None, used=33_137)
    for _ in minutes(8):
        yield node(whole, other, SLICE)


DRIVER = replace(GHOST, util=99, used=4, index=5)


@zombie(ghost(DRIVER))
def a_gpu_that_holds_only_what_the_driver_takes() -> Iterator[Frame]:
    for _ in minutes(8):
        yield node(DRIVER)


EIGHTH = replace(GHOST, index=7, model="NVIDIA H100 80GB HBM3", total=81_559)


@zombie(ghost(EIGHTH))
def one_of_eight() -> Iterator[Frame]:
    for _ in minutes(8):
        yield node(*(replace(WORKING, index=i, pods=POD) for i in range(7)), EIGHTH)


@zombie(ghost(GHOST))
def a_gpu_whose_use_goes_up_and_down() -> Iterator[Frame]:
    for t in minutes(8):
        yield node(replace(GHOST, util=60 + t // 30 * 13 % 41))


NO_POWER = replace(GHOST, index=4, power=BLANK, temperature=None, xid=None)


@zombie(ghost(NO_POWER))
def a_gpu_that_does_not_tell_its_power() -> Iterator[Frame]:
    for _ in minutes(8):
        yield node(NO_POWER)


@zombie(ghost(GHOST))
def a_ghost_whose_exporter_is_missed_now_and_then() -> Iterator[Frame]:
    for t in minutes(10):
        yield Frame() if t % 120 == 60 else node(GHOST)


@zombie(ghost(GHOST))
def a_ghost_on_a_host_whose_clock_is_ahead() -> Iterator[Frame]:
    for t in minutes(8):
        yield node(replace(GHOST, time_ms=int(START_S + t + 7200) * 1000))


@lookalike
def a_gpu_with_a_process_and_no_kubernetes() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(WORKING)


@lookalike
def a_gpu_with_an_error_and_its_process() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(WORKING, util=100, xid=31, pods=POD))


@lookalike
def a_partitioned_gpu_as_a_whole() -> Iterator[Frame]:
    part = Card(mig=("1g.10gb", "7"), util=None, active=0.9, used=8_100, pods=POD)
    for _ in minutes(20):
        yield node(replace(part, mig=None, util=100, active=None, used=0, pods=[]), part)


@lookalike
def a_slice_of_which_no_memory_is_told() -> Iterator[Frame]:
    part = Card(mig=("1g.10gb", "8"), util=None, active=1.0, used=None, pods=[])
    for _ in minutes(20):
        yield node(part)


@lookalike
def a_pod_that_has_not_loaded_anything_yet() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(GHOST, pods=POD))


@lookalike
def a_free_gpu() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(Card(util=0, used=0, pods=[]))


@lookalike
def a_free_gpu_that_is_asked_how_it_is_all_the_time() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(Card(util=7, used=3, pods=[]))


@lookalike
def a_diagnosis_of_two_minutes() -> Iterator[Frame]:
    for t in minutes(20):
        yield node(GHOST if 300 <= t < 420 else Card())


@lookalike
def a_gpu_of_which_no_memory_is_told() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(GHOST, used=None))


@lookalike
def a_gpu_whose_memory_is_blank() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(GHOST, used=BLANK, total=2.0 * BLANK))


@lookalike
def a_gpu_whose_use_is_blank() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(GHOST, util=BLANK))


@lookalike
def an_exporter_that_is_lost_while_a_ghost_is_suspected() -> Iterator[Frame]:
    for t in minutes(20):
        yield node(GHOST) if t < 120 else Frame()


@lookalike
def a_gpu_that_several_pods_share_in_turns() -> Iterator[Frame]:
    shared = [*POD, ("research", "notebook-0")]
    for t in minutes(20):
        yield node(replace(GHOST, used=0 if t % 60 else 900, pods=shared))


@lookalike
def answers_that_come_from_a_cache_and_say_so() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(replace(GHOST, time_ms=int(START_S * 1000) - 600_000))


@lookalike
def an_engine_that_sleeps_and_has_put_its_weights_away() -> Iterator[Frame]:
    for _ in minutes(20):
        yield node(Card(util=0, used=743))


@lookalike
def jobs_with_pauses_between_them() -> Iterator[Frame]:
    for t in minutes(40):
        yield node(replace(GHOST, util=100 if t % 240 < 180 else 0))
