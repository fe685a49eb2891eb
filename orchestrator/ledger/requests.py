"""When requests came and how long they were, from the record of their attempts."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

FILE = "ledger.sqlite"

_TOKENS = "sum(prompt_tokens) > 0 OR sum(completion_tokens) > 0"
_QUERY = f"""
SELECT min(started_at_s) AS began_s,
       min(CASE WHEN prompt_tokens > 0 THEN prompt_tokens END),
       CASE WHEN max(outcome = 'complete')
            THEN sum(CASE WHEN outcome = 'cancelled' THEN 0 ELSE completion_tokens END)
            ELSE sum(completion_tokens) END,
       max(workload)
FROM usage GROUP BY request_id HAVING {_TOKENS} ORDER BY began_s
"""  # noqa: S608
_LEFT_OUT = f"""
SELECT count(*) FROM (SELECT 1 FROM usage GROUP BY request_id HAVING NOT ({_TOKENS}))
"""  # noqa: S608


class LedgerError(Exception):
    """The ledger cannot be read; the message names the file and the mend."""


def requests(path: Path) -> Iterator[tuple[float, int, int, str]]:
    """Seconds since the first, prompt and output tokens, and workload of every request whose
    lengths are known, in order of their first attempts. Raises LedgerError.

    An answer continued elsewhere counts with all its parts, its prompt once; what a slower copy of
    an answered request wrote does not count.
    """
    first_s: float | None = None
    try:
        with closing(_open(path)) as connection:
            for began_s, prompt, output, workload in connection.execute(_QUERY):
                first_s = began_s if first_s is None else first_s
                yield began_s - first_s, prompt or 0, output, workload
    except (sqlite3.Error, TypeError) as error:
        raise LedgerError(f"{path}:1: no usage ledger: {error}") from None
    if first_s is None:
        raise LedgerError(f"{path}:1: no requests with tokens")


def left_out(path: Path) -> int:
    """Requests that reached no endpoint, so that nobody counted their tokens."""
    try:
        with closing(_open(path)) as connection:
            return int(connection.execute(_LEFT_OUT).fetchone()[0])
    except sqlite3.Error as error:
        raise LedgerError(f"{path}:1: no usage ledger: {error}") from None


def _open(path: Path) -> sqlite3.Connection:
    """To read: an import must not make a ledger."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
