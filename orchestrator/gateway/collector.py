"""Python's garbage collector, for a process that serves requests.

By default it looks for cycles every 700 new containers, of which a request makes some hundreds, and
now and then at all that the process holds: a third of a request's time. Requests leave no cycles;
what does come of them, by failures and libraries, may wait.
"""

import gc

YOUNG = 50_000
"""New containers, less those that are gone, between two looks at them."""


def settle() -> None:
    """Called when all is loaded that stays: it is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
