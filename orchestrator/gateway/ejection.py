"""A circuit breaker for each endpoint: one that keeps failing is left alone for a while, then tried
with one request."""

from dataclasses import dataclass

FAILURES_IN_A_ROW = 3
FAILED_SHARE = 0.5
MIN_ATTEMPTS = 20
"""Of a window, before its share of failures counts."""
WINDOW_S = 10.0
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
FORGET_AFTER_S = 600.0
"""After so long without an ejection the next pause is a first one."""


def says_it_is_ill(reason: str) -> bool:
    """Whether a failed attempt tells something of the endpoint, and not of this request, of a
    configuration, which the next request may find otherwise, or of what we did ourselves."""
    return not reason.startswith(("status_3", "status_4")) and reason not in (
        "too_large",
        "evicted",
    )


@dataclass(slots=True)
class _Circuit:
    failures_in_a_row: int = 0
    window_began_s: float = 0.0
    attempts: int = 0
    failures: int = 0
    ejections: int = 0
    """One after the other, each with a pause of twice the length."""
    ejected_until_s: float | None = None
    """None while it is closed; over, while a trial decides."""
    trial: object = None
    """The attempt that decides."""
    why: str = ""
    forget_at_s: float = 0.0

    def count(self, failed: bool, now_s: float) -> None:
        if now_s - self.window_began_s > WINDOW_S:
            self.window_began_s, self.attempts, self.failures = now_s, 0, 0
        self.attempts += 1
        self.failures += failed
        self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0

    def verdict(self) -> str:
        """Why it is to be ejected, empty when it is not."""
        if self.failures_in_a_row >= FAILURES_IN_A_ROW:
            return f"failed {self.failures_in_a_row} times in a row"
        if self.attempts >= MIN_ATTEMPTS and self.failures >= FAILED_SHARE * self.attempts:
            return f"failed {self.failures} of {self.attempts} times"
        return ""


class Ejection:
    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}
        self._ejected: set[str] = set()

    def opened(self, endpoint: str, attempt: object, now_s: float) -> None:
        """An attempt begins. After a pause the first one is the trial."""
        if endpoint in self._ejected:
            circuit = self._circuits[endpoint]
            is_over = circuit.ejected_until_s is not None and circuit.ejected_until_s <= now_s
            if is_over and circuit.trial is None:
                circuit.trial = attempt

    def failed(self, endpoint: str, attempt: object, reason: str, now_s: float) -> None:
        if not says_it_is_ill(reason):
            return
        circuit = self._circuits.setdefault(endpoint, _Circuit())
        circuit.count(True, now_s)
        if endpoint in self._ejected:
            # What one fault broke at once is one fault: only a trial makes the pause longer.
            if circuit.trial is not None and circuit.trial is attempt:
                self._eject(endpoint, circuit, "failed its trial", now_s)
        elif why := circuit.verdict():
            if circuit.forget_at_s < now_s:
                circuit.ejections = 0
            self._eject(endpoint, circuit, why, now_s)

    def _eject(self, endpoint: str, circuit: _Circuit, why: str, now_s: float) -> None:
        # Pauses stop growing long before the power is too large a number.
        pause_s = min(FIRST_PAUSE_S * 2 ** min(circuit.ejections, 10), LONGEST_PAUSE_S)
        circuit.ejections += 1
        circuit.why = why
        circuit.ejected_until_s = now_s + pause_s
        circuit.forget_at_s = now_s + FORGET_AFTER_S
        circuit.trial = None
        self._ejected.add(endpoint)

    def succeeded(self, endpoint: str, now_s: float) -> None:
        circuit = self._circuits.setdefault(endpoint, _Circuit())
        circuit.count(False, now_s)
        if endpoint in self._ejected:
            self._ejected.discard(endpoint)
            circuit.ejected_until_s = None
            circuit.trial = None
            circuit.attempts = circuit.failures = 0

    def closed(self, endpoint: str, attempt: object) -> None:
        """An attempt is over. One that told nothing, since its client left, leaves the trial to the
        next."""
        if endpoint in self._ejected and self._circuits[endpoint].trial is attempt:
            self._circuits[endpoint].trial = None

    def ejected(self, now_s: float) -> dict[str, str]:
        """Endpoints not to be used now, with the reason."""
        if not self._ejected:
            return {}
        found = {}
        for endpoint in self._ejected:
            circuit = self._circuits[endpoint]
            assert circuit.ejected_until_s is not None
            if circuit.ejected_until_s > now_s:
                found[endpoint] = f"'{endpoint}' {circuit.why}"
            elif circuit.trial is not None:
                found[endpoint] = f"'{endpoint}' {circuit.why} and is on trial"
        return found
