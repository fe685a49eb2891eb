"""Replicas without a request, and those that only look so."""

from collections.abc import Iterator

from tests.zombies.expositions import Simulated, Vllm
from tests.zombies.labelled import lookalike, minutes, zombie
from tests.zombies.world import CLOUD, HOME, RENTED, START_S, Frame, endpoint

IDLE = f"idle:{CLOUD}"


def cloud(engine: Vllm | Simulated | None, ready: int = 1, **about: object) -> Frame:
    """Replicas in the cloud, behind the endpoint's front."""
    return Frame(
        endpoints={CLOUD: endpoint(ready, **about)},
        engines={CLOUD: {CLOUD: engine.text() if engine else None}},
    )


def fleet(engines: list[Vllm], **about: object) -> Frame:
    """Replicas in the cloud, each with an address of its own."""
    texts = {f"{CLOUD}/{number}": e.text() for number, e in enumerate(engines)}
    return Frame(endpoints={CLOUD: endpoint(len(engines), **about)}, engines={CLOUD: texts})


@zombie(IDLE)
def a_burst_that_forgot_to_come_back() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(20):
        if t < 300:
            engine.answer(9)
        yield cloud(engine)


@zombie(IDLE)
def a_replica_that_was_never_asked_anything_but_its_warm_up() -> Iterator[Frame]:
    engine = Simulated()
    engine.answer(prompt=2, generated=1)
    for _ in minutes(12):
        yield cloud(engine)


@zombie(f"{IDLE}/1", f"{IDLE}/2")
def two_of_three_replicas_beside_a_busy_one() -> Iterator[Frame]:
    engines = [Vllm(running=6), Vllm(stopped=80), Vllm(stopped=3)]
    for _ in minutes(15):
        engines[0].answer(20)
        yield fleet(engines, standby=1)


@zombie(f"{IDLE}/1", f"{IDLE}/2")
def three_idle_replicas_of_which_one_is_declared() -> Iterator[Frame]:
    engines = [Vllm(), Vllm(), Vllm()]
    for t in minutes(20):
        if t < 180:
            engines[0].answer()
        yield fleet(engines, standby=1)


@zombie(IDLE)
def three_replicas_behind_a_front_that_gateways_no_longer_use() -> Iterator[Frame]:
    engines = [Vllm(stopped=n * 100) for n in range(3)]
    for t in minutes(15):
        yield cloud(engines[t // 30 % 3], ready=3, served=912)


@zombie(IDLE)
def an_idle_replica_whose_metrics_are_missed_now_and_then() -> Iterator[Frame]:
    engine = Vllm(stopped=41)
    for t in minutes(15):
        yield cloud(None if t % 120 == 90 else engine)


@zombie(IDLE)
def a_drain_that_waits_for_a_gateway_that_will_never_answer() -> Iterator[Frame]:
    engine = Vllm(stopped=500)
    for _ in minutes(15):
        yield cloud(engine, draining=True, open_requests=None)


@zombie(IDLE)
def an_engine_that_was_restarted_and_forgotten() -> Iterator[Frame]:
    engine = Vllm(stopped=500, prompt_tokens=70_000)
    for t in minutes(15):
        if t == 120:
            engine.restart(1_764_300_111.0)
        yield cloud(engine)


@zombie(IDLE)
def the_last_request_was_cancelled_and_nobody_came_after() -> Iterator[Frame]:
    engine = Vllm(stopped=10, running=1)
    for t in minutes(18):
        if t == 240:
            engine.running, engine.aborted = 0, 1
        yield cloud(engine)


@zombie(IDLE)
def an_engine_whose_own_clock_is_a_day_ahead() -> Iterator[Frame]:
    engine = Vllm(started_s=START_S + 86_400, stopped=12)
    for _ in minutes(12):
        yield cloud(engine)


@lookalike
def a_warm_standby() -> Iterator[Frame]:
    engine = Vllm()
    for _ in minutes(120):
        yield Frame(
            endpoints={HOME: endpoint(ready=1, standby=1)}, engines={HOME: {HOME: engine.text()}}
        )


@lookalike
def two_warm_standbys_of_which_one_works() -> Iterator[Frame]:
    engines = [Vllm(running=2), Vllm()]
    for _ in minutes(60):
        engines[0].answer(5)
        yield fleet(engines, standby=2)


@lookalike
def a_replica_that_serves_since_nine_minutes() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(13):
        yield cloud(engine) if t >= 240 else cloud(None, ready=0, starting=1 if t > 120 else 0)


@lookalike
def a_replica_that_still_warms_up() -> Iterator[Frame]:
    for _ in minutes(20):
        yield Frame(endpoints={CLOUD: endpoint(ready=0, target=0)})


@lookalike
def a_request_every_nine_minutes() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(60):
        if t % 540 == 0:
            engine.answer()
        yield cloud(engine)


@lookalike
def one_long_stream() -> Iterator[Frame]:
    engine = Vllm(running=1, prompt_tokens=900)
    for _ in minutes(60):
        engine.generation_tokens += 900
        yield cloud(engine)


@lookalike
def a_stream_that_has_not_got_a_token_in_a_long_time() -> Iterator[Frame]:
    engine = Vllm(running=1, prompt_tokens=900)
    for _ in minutes(30):
        yield cloud(engine)


@lookalike
def a_request_that_waits_for_room_in_the_batch() -> Iterator[Frame]:
    engine = Vllm(waiting=1)
    for _ in minutes(30):
        yield cloud(engine)


@lookalike
def requests_so_short_that_no_sweep_sees_them() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(30):
        if t % 300 == 0:
            engine.answer(prompt=12, generated=1)
        yield cloud(engine)


@lookalike
def clients_that_all_hang_up() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(30):
        if t % 300 == 0:
            engine.aborted += 1
        yield cloud(engine)


@lookalike
def an_embedding_engine_that_generates_nothing() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(30):
        if t % 240 == 0:
            engine.answer(prompt=512, generated=0)
        yield cloud(engine)


@lookalike
def a_batch_window_for_which_the_schedule_keeps_replicas() -> Iterator[Frame]:
    engines = [Vllm(), Vllm()]
    for t in minutes(60):
        if t > 2700:
            engines[0].answer(50)
        yield fleet(engines, standby=2)


@lookalike
def metrics_that_were_never_heard() -> Iterator[Frame]:
    for _ in minutes(60):
        yield cloud(None)


@lookalike
def metrics_that_were_lost_while_idle() -> Iterator[Frame]:
    engine = Vllm(stopped=7)
    for t in minutes(60):
        yield cloud(engine if t < 300 else None)


@lookalike
def metrics_that_come_back_after_a_long_time() -> Iterator[Frame]:
    engine = Vllm(stopped=7)
    for t in minutes(14):
        yield cloud(engine if t < 300 or t > 600 else None)


@lookalike
def an_engine_that_dies_every_few_minutes() -> Iterator[Frame]:
    engine = Vllm()
    for t in minutes(40):
        if t % 240 == 0:
            engine.restart(START_S + t)
        yield cloud(engine)


@lookalike
def a_new_replica_with_the_counters_of_the_one_before() -> Iterator[Frame]:
    engine = Vllm(stopped=1, prompt_tokens=2, generation_tokens=1)
    for t in minutes(14):
        if t == 300:
            engine.started_s = START_S + 290
        yield cloud(engine)


@lookalike
def counters_that_fall_back_to_zero_and_rise() -> Iterator[Frame]:
    engine = Vllm(started_s=None, stopped=100, prompt_tokens=4000)
    for t in minutes(30):
        if t % 480 == 240:
            engine.restart(None)
        elif t % 480 == 0:
            engine.answer()
        yield cloud(engine)


@lookalike
def our_clock_jumps_ahead_by_an_hour() -> Iterator[Frame]:
    engine = Vllm(stopped=5)
    for t in minutes(9):
        frame = cloud(engine)
        yield Frame(frame.endpoints, frame.engines, clock_s=3600 if t >= 240 else 0)


@lookalike
def our_clock_is_set_back() -> Iterator[Frame]:
    engine = Vllm(stopped=5)
    for t in minutes(13):
        frame = cloud(engine)
        yield Frame(frame.endpoints, frame.engines, clock_s=-7200 if t >= 240 else 0)


@lookalike
def a_replica_that_drains_under_a_stream() -> Iterator[Frame]:
    engine = Vllm(running=1)
    for t in minutes(30):
        engine.generation_tokens += 600
        yield cloud(engine, target=0) if t < 900 else Frame(endpoints={CLOUD: endpoint(0)})


@lookalike
def a_pool_that_somebody_has_paused() -> Iterator[Frame]:
    engine = Vllm(stopped=77)
    for _ in minutes(60):
        yield cloud(engine, held=True)


@lookalike
def spot_replicas_about_to_be_lost() -> Iterator[Frame]:
    engine = Vllm(stopped=77)
    for t in minutes(30):
        if t < 540:
            yield cloud(engine)
        elif t < 660:
            yield cloud(engine, held=True)
        else:
            yield Frame(endpoints={CLOUD: endpoint(0)})


@lookalike
def a_request_that_hangs_between_gateway_and_engine() -> Iterator[Frame]:
    engine = Vllm(stopped=3)
    for _ in minutes(30):
        yield cloud(engine, open_requests=1)


@lookalike
def a_cluster_that_is_not_observed_any_more() -> Iterator[Frame]:
    engine = Vllm(stopped=3)
    for t in minutes(30):
        frame = cloud(engine)
        yield frame if t < 300 else Frame(endpoints={CLOUD: None}, engines=frame.engines)


@lookalike
def a_front_that_asks_the_idle_one_of_three_busy_replicas() -> Iterator[Frame]:
    engine = Vllm(stopped=3)
    for t in minutes(30):
        yield cloud(engine, ready=3, served=100 + t // 90)


@lookalike
def a_front_of_three_beside_a_silent_gateway() -> Iterator[Frame]:
    engine = Vllm(stopped=3)
    for _ in minutes(30):
        yield cloud(engine, ready=3, served=None, open_requests=None)


@lookalike
def an_engine_that_does_not_count_what_it_has_answered() -> Iterator[Frame]:
    engine = Vllm(counts_success=False)
    for _ in minutes(30):
        yield cloud(engine)


@lookalike
def an_endpoint_that_somebody_else_runs() -> Iterator[Frame]:
    engine = Vllm()
    for _ in minutes(60):
        yield Frame(
            endpoints={RENTED: endpoint(ready=1)}, engines={RENTED: {RENTED: engine.text()}}
        )
