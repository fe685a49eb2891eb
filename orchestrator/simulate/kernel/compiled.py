"""Compiles by numba, and keeps what was compiled until any source that it is made of changes."""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from numba import njit  # type: ignore[attr-defined]
from numba.core import config  # type: ignore[import-untyped]
from numba.core.caching import (  # type: ignore[import-untyped]
    InTreeCacheLocator,
    UserWideCacheLocator,
)

HERE = Path(__file__).parent
SOURCES = (*sorted(HERE.glob("*.py")), HERE.parent / "tables.py")
"""A function is compiled with all that it calls, and with the constants and tables that it names:
by its own file alone, which is what numba looks at, a change of these would go unnoticed."""


@cache
def stamp() -> str:
    digest = blake2b(digest_size=16)
    for source in SOURCES:
        digest.update(source.read_bytes())
    return digest.hexdigest()


class BesideSources(InTreeCacheLocator):  # type: ignore[misc]
    def get_source_stamp(self) -> str:
        return stamp()


class OfUser(UserWideCacheLocator):  # type: ignore[misc]
    """Where the sources cannot be written beside."""

    def get_source_stamp(self) -> str:
        return stamp()


Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """For callers from Python."""
    return _kept(function)


def inner(function: Function) -> Function:
    """For compiled callers alone."""
    return _kept(function, no_cpython_wrapper=True)


def _kept(function: Function, **options: bool) -> Function:
    before = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = f"{__name__}.BesideSources,{__name__}.OfUser"
    try:
        kept: Function = njit(cache=True, **options)(function)
    finally:
        config.CACHE_LOCATOR_CLASSES = before
    return kept
