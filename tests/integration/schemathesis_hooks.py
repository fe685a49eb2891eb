"""What schemathesis holds the gateway to beside its own checks. It imports this module itself."""

from typing import Any

import schemathesis


@schemathesis.check
def fails_only_for_a_while(_: Any, response: Any, __: Any) -> None:
    """No 5xx but one that says when to come again."""
    if response.status_code >= 500:
        assert response.status_code == 503
        assert int(response.headers["retry-after"][0]) > 0
