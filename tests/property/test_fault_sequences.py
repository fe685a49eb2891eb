"""Any sequence of faults: pools that die, prices that jump, a classifier that crashes, a state that
goes stale, other rules in the middle. A request reaches only zones that may hold it."""

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.classify import classifier_for
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Configuration
from orchestrator.gateway.ejection import Ejection
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from orchestrator.policy.view import View
from tests.worlds import catalogues, quote, snapshots

SEQUENCES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "1000")) // 2
STEPS = 20
TEXTS = {
    "What is the tallest mountain?": DataClass.PUBLIC,
    "Charge 4111 1111 1111 1111, please.": DataClass.CONFIDENTIAL,
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA": DataClass.RESTRICTED,
}
"""What is asked, and how sensitive it is whatever happens."""


class Faults(RuleBasedStateMachine):
    """A gateway's side of placement, over a fleet to which anything may happen."""

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.catalogue = data.draw(catalogues())
        self.view = View(self.catalogue, data.draw(snapshots(self.catalogue)))
        self.classifier = classifier_for(self.catalogue.configuration)
        self.ejection = Ejection()
        self.age_s = 0.0
        self.now_s = 0.0
        self.crashes = False
        self.reached: list[tuple[DataClass, DataClass]] = []
        """(class of the request, highest class that its zone may hold)."""

    @rule(data=st.data(), ready=st.integers(0, 2))
    def a_pool_changes(self, data: st.DataObject, ready: int) -> None:
        endpoint = data.draw(st.sampled_from(list(self.catalogue.candidates)))
        state = EndpointState(ready_replicas=ready)
        self._snapshot(endpoints={**self.view.snapshot.endpoints, endpoint: state})

    @rule(data=st.data(), usd=st.floats(0, 1000))
    def a_price_jumps(self, data: st.DataObject, usd: float) -> None:
        pool = data.draw(st.sampled_from(list(self.catalogue.pools)))
        self._snapshot(quotes={**self.view.snapshot.quotes, pool: quote(usd)})

    @rule(data=st.data(), phase=st.sampled_from(BurstPhase))
    def a_burst_changes(self, data: st.DataObject, phase: BurstPhase) -> None:
        workload = data.draw(st.sampled_from(list(self.catalogue.workloads)))
        pool = data.draw(st.sampled_from(list(self.catalogue.pools)))
        state = BurstState(phase=phase, pool=pool)
        self._snapshot(bursts={**self.view.snapshot.bursts, workload: state})

    @rule(age_s=st.sampled_from([0.0, 1e6]))
    def the_state_ages(self, age_s: float) -> None:
        self.age_s = age_s

    @rule(crashes=st.booleans())
    def the_classifier_crashes(self, crashes: bool) -> None:
        self.crashes = crashes

    @rule(data=st.data())
    def other_rules_are_applied(self, data: st.DataObject) -> None:
        raw = self.catalogue.configuration.model_dump(mode="json")
        for part, field in (("zones", "max_data_class"), ("workloads", "data_class")):
            for item in raw[part]:
                item[field] = data.draw(st.sampled_from([c.label for c in DataClass]))
        version = f"{self.catalogue.version}+"
        self.catalogue = Catalogue(Configuration.model_validate(raw), version)
        self.view = View(self.catalogue, self.view.snapshot)
        self.classifier = classifier_for(self.catalogue.configuration)

    @rule(
        data=st.data(),
        text=st.sampled_from(list(TEXTS)),
        claimed=st.sampled_from(DataClass),
        session=st.sampled_from(DataClass),
        smaller=st.booleans(),
    )
    def a_request_comes(
        self,
        data: st.DataObject,
        text: str,
        claimed: DataClass,
        session: DataClass,
        smaller: bool,
    ) -> None:
        workload = data.draw(st.sampled_from(self.catalogue.configuration.workloads))

        def clock() -> float:
            raise RuntimeError("the clock is broken")

        body = {"messages": [{"role": "user", "content": text}]}
        if self.crashes:
            found = self.classifier.classify(workload.name, body, clock=clock)
            assert found.data_class is DataClass.RESTRICTED
        else:
            found = self.classifier.classify(workload.name, body)
        facts = Facts(
            workload.name,
            data.draw(st.sampled_from(workload.models)),
            claimed=claimed,
            session=session,
            content=found.data_class,
            snapshot_age_s=self.age_s,
            smaller_variant=smaller,
        )
        true_class = max(workload.data_class, claimed, session, TEXTS[text])
        if self.age_s:
            true_class = DataClass.RESTRICTED  # nobody vouches for the state any more
        self._attempts(facts, true_class, workload.allowed_zones, data)

    def _attempts(
        self, facts: Facts, true_class: DataClass, allowed: list[str], data: st.DataObject
    ) -> None:
        failed: dict[str, str] = {}
        for _ in range(3):
            self.now_s += 1
            excluded = {**self.ejection.ejected(self.now_s), **failed}
            grant = decide(facts._replace(excluded=excluded), self.view).grant
            if grant is None:
                return
            zone = grant.candidate.zone
            assert zone.name in allowed
            self.reached.append((true_class, zone.max_data_class))
            if data.draw(st.booleans()):
                self.ejection.succeeded(grant.candidate.endpoint, self.now_s)
                return
            failed[grant.candidate.endpoint] = "failed"
            self.ejection.failed(grant.candidate.endpoint, None, "cut", self.now_s)

    @invariant()
    def nothing_reached_a_zone_that_may_not_hold_it(self) -> None:
        for true_class, holds in getattr(self, "reached", ()):
            assert true_class <= holds

    def _snapshot(self, **changes: object) -> None:
        self.view = View(self.catalogue, self.view.snapshot.model_copy(update=changes))


TestFaults = Faults.TestCase
TestFaults.settings = settings(max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None)
