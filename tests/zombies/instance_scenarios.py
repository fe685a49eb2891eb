"""What nobody owns, what does not come up, what nobody declared; and what only looks so."""

from collections.abc import Iterator

from orchestrator.zombies.sweep import Instance
from tests.zombies.expositions import Vllm, models
from tests.zombies.labelled import lookalike, minutes, zombie
from tests.zombies.world import CLOUD, HOME, START_S, TUNED, Frame, endpoint

OLD = "cloud-gpu--m-int4"


def left(replicas: int = 1, busy: bool | None = False, name: str = OLD) -> Instance:
    return Instance(name, "away", 0, "cloud-gpu/m-int4", replicas, busy)


@zombie(f"orphan:away/{OLD}")
def an_application_of_a_variant_that_the_rules_have_no_more() -> Iterator[Frame]:
    for _ in minutes(5):
        yield Frame(instances=(left(2),))


@zombie("orphan:away/raycluster-burst-7f3a")
def a_rented_machine_without_a_replica() -> Iterator[Frame]:
    for _ in minutes(5):
        yield Frame(instances=(Instance("raycluster-burst-7f3a", "away", 0),))


@zombie(f"orphan:away/{OLD}")
def an_orphan_whose_engine_does_not_answer() -> Iterator[Frame]:
    for _ in minutes(5):
        yield Frame(instances=(left(1, busy=None),))


@zombie(f"orphan:away/{OLD}")
def an_orphan_that_has_ended_what_it_had() -> Iterator[Frame]:
    for t in minutes(12):
        yield Frame(instances=(left(1, busy=t < 420),))


@zombie("orphan:away/cloud-gpu--m-fp16-b")
def a_scale_up_in_the_middle_of_which_the_controller_died() -> Iterator[Frame]:
    for t in minutes(8):
        # For a moment nobody publishes.
        yield Frame(instances=(left(1, None, "cloud-gpu--m-fp16-b"),), publishes=not 60 <= t < 90)


@zombie(f"orphan:away/{OLD}", "orphan:away/other")
def two_orphans_in_one_cluster() -> Iterator[Frame]:
    for _ in minutes(5):
        yield Frame(instances=(left(3), Instance("other", "away", 0, None, 1, False)))


@lookalike
def an_application_between_two_versions_of_the_rules() -> Iterator[Frame]:
    for t in minutes(20):
        yield Frame(instances=(left(),) if 300 <= t < 390 else ())


@lookalike
def an_orphan_that_still_ends_its_streams() -> Iterator[Frame]:
    for _ in minutes(20):
        yield Frame(instances=(left(busy=True),))


@lookalike
def no_snapshot_for_a_long_time() -> Iterator[Frame]:
    for t in minutes(20):
        yield Frame(instances=(left(),) if t > 90 else (), publishes=t < 30)


@lookalike
def a_listing_that_was_lost_after_one_look() -> Iterator[Frame]:
    for t in minutes(20):
        yield Frame(instances=(left(),) if t == 0 else None)


@lookalike
def an_application_that_the_rules_have_taken_back() -> Iterator[Frame]:
    for t in minutes(20):
        known = frozenset({CLOUD, HOME} | ({"cloud-gpu/m-int4"} if t > 60 else set()))
        yield Frame(instances=(left(),), known=known)


def coming(starting: int = 1, ready: int = 0, **about: object) -> Frame:
    text = Vllm(running=2).text()
    engines = {CLOUD: {CLOUD: text}} if ready else {}
    return Frame(
        endpoints={CLOUD: endpoint(ready, starting=starting, open_requests=4, **about)},
        engines=engines,
    )


PENDING = f"pending:{CLOUD}"


@zombie(PENDING)
def a_replica_that_never_comes_up() -> Iterator[Frame]:
    for _ in minutes(5):
        yield coming()


@zombie(PENDING)
def no_machine_to_be_had() -> Iterator[Frame]:
    why = "0/7 nodes are available: 7 Insufficient nvidia.com/gpu"
    for _ in minutes(5):
        yield coming(2, failed=why, pending_since_s=START_S - 4)


@zombie(PENDING)
def one_of_two_comes_up() -> Iterator[Frame]:
    for t in minutes(7):
        yield coming(2) if t < 120 else coming(1, ready=1)


@zombie(PENDING)
def an_engine_that_crashes_while_it_loads_and_starts_again() -> Iterator[Frame]:
    for _ in minutes(6):
        yield coming(pending_since_s=START_S, failed="RuntimeError: CUDA out of memory")


@zombie(PENDING)
def replicas_that_crash_one_after_another() -> Iterator[Frame]:
    for t in minutes(6):
        since_s = START_S + t // 60 * 60
        yield coming(pending_since_s=since_s, failed="the replica died during start-up")


@zombie(PENDING)
def a_late_replica_in_a_cluster_whose_clock_is_ahead() -> Iterator[Frame]:
    for _ in minutes(5):
        yield coming(pending_since_s=START_S + 3600)


@zombie(PENDING)
def a_late_replica_of_a_cluster_that_is_missed_now_and_then() -> Iterator[Frame]:
    for t in minutes(8):
        yield Frame(endpoints={CLOUD: None}) if t % 120 == 60 else coming()


@lookalike
def large_weights_on_a_slow_disk() -> Iterator[Frame]:
    for t in minutes(8):
        yield coming() if t <= 170 else coming(0, ready=1)


@lookalike
def a_scale_up_of_one_replica_after_another() -> Iterator[Frame]:
    for t in minutes(12):
        ready = min(4, t // 150)
        yield coming(4 - ready, ready=ready)


@lookalike
def replicas_that_are_replaced_one_by_one() -> Iterator[Frame]:
    for t in minutes(20):
        yield coming(1, ready=2, pending_since_s=START_S + t // 120 * 120)


@zombie(PENDING)
def a_scale_up_that_was_called_off_and_does_not_go() -> Iterator[Frame]:
    for t in minutes(9):
        yield coming(2) if t < 120 else coming(2, target=0)


@lookalike
def a_scale_up_that_was_called_off() -> Iterator[Frame]:
    for t in minutes(12):
        if t < 120:
            yield coming(2)
        else:
            yield coming(2, target=0) if t < 240 else coming(0)


@lookalike
def a_cluster_that_is_lost_while_a_replica_starts() -> Iterator[Frame]:
    for t in minutes(12):
        yield coming() if t < 90 else Frame(endpoints={CLOUD: None})


@lookalike
def a_replica_just_asked_for_in_a_cluster_whose_clock_is_behind() -> Iterator[Frame]:
    for t in minutes(4):
        yield coming(pending_since_s=START_S - 7200) if t <= 150 else coming(0, ready=1)


@lookalike
def a_deployment_that_was_given_up() -> Iterator[Frame]:
    for _ in minutes(12):
        yield Frame(endpoints={CLOUD: endpoint(0, target=1, failed="no such model")})


def tuned(listed: str | None, engine: Vllm | None = None) -> Frame:
    engine = engine or Vllm(running=1)
    return Frame(
        endpoints={TUNED: endpoint(1, standby=1)},
        engines={TUNED: {TUNED: engine.text()}},
        models={TUNED: listed},
    )


@zombie(f"adapter:{TUNED}#law-2023")
def an_adapter_of_last_year_beside_the_declared_one() -> Iterator[Frame]:
    for _ in minutes(12):
        yield tuned(models("m-law@base", "law", "law-2023"))


@zombie(f"adapter:{TUNED}#somebodys-test")
def an_adapter_that_is_seen_at_work_alone() -> Iterator[Frame]:
    for t in minutes(12):
        infos = [("law", "", START_S), ("law,somebodys-test", "", START_S + t + 1)]
        yield tuned(None, Vllm(running=2, infos=infos))


@zombie(f"adapter:{TUNED}#a", f"adapter:{TUNED}#b")
def two_adapters_on_one_engine() -> Iterator[Frame]:
    for _ in minutes(12):
        yield tuned(models("m-law@base", "a", "b"))


@zombie(f"adapter:{TUNED}#waits")
def an_adapter_whose_requests_wait() -> Iterator[Frame]:
    for t in minutes(12):
        yield tuned(None, Vllm(waiting=3, infos=[("law", "waits", START_S + t)]))


@lookalike
def a_declared_adapter() -> Iterator[Frame]:
    for _ in minutes(30):
        yield tuned(models("m-law@base", "law"))


@lookalike
def an_adapter_that_was_used_long_ago() -> Iterator[Frame]:
    infos = [("law-2023", "", START_S - 86_400), ("", "law-2023", START_S - 86_401)]
    for t in minutes(30):
        yield tuned(None, Vllm(infos=[*infos, ("", "", START_S + t)]))


@lookalike
def an_adapter_that_is_tried_for_five_minutes() -> Iterator[Frame]:
    for t in minutes(30):
        yield tuned(models("m-law@base", "law", *(["try"] if 60 < t < 360 else [])))


@lookalike
def a_list_of_adapters_that_was_lost() -> Iterator[Frame]:
    for t in minutes(30):
        yield tuned(models("m-law@base", "law-2023") if t < 120 else None)
