"""Endpoints that keep failing are left alone for a while."""

from collections import defaultdict

FAILURES = 3
"""Failures in a row that eject an endpoint."""
PAUSE_S = 5.0


class Ejection:
    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = defaultdict(int)
        self._until_s: dict[str, float] = {}

    def failed(self, endpoint: str, now_s: float) -> None:
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
