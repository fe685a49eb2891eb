"""Endpoints that keep failing are left alone for a while."""

from collections import defaultdict

FAILURES = 3
"""Failures in a row that eject an endpoint."""
PAUSE_S = 5.0


def says_it_is_ill(reason: str) -> bool:
    """Whether a failed attempt tells something of the endpoint, and not of this request or of a
    configuration, which the next request may find otherwise."""
    return not reason.startswith(("status_3", "status_4")) and reason != "too_large"


class Ejection:
    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = defaultdict(int)
        self._until_s: dict[str, float] = {}

    def failed(self, endpoint: str, reason: str, now_s: float) -> None:
        if not says_it_is_ill(reason):
            return
        self._in_a_row[endpoint] += 1
        if self._in_a_row[endpoint] >= FAILURES:
            self._until_s[endpoint] = now_s + PAUSE_S

    def succeeded(self, endpoint: str) -> None:
        if endpoint in self._in_a_row:
            del self._in_a_row[endpoint]
            self._until_s.pop(endpoint, None)

    def ejected(self, now_s: float) -> dict[str, str]:
        """Endpoints not to be used now, with the reason. After the pause one failure more ejects
        again, one success clears the count."""
        return {
            endpoint: f"'{endpoint}' failed {self._in_a_row[endpoint]} times in a row"
            for endpoint, until_s in self._until_s.items()
            if until_s > now_s
        }
