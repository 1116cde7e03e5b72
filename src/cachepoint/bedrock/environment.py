"""What the environment says, by CACHEPOINT_MODE and CACHEPOINT_RULES.

Where a client or a model is made, a wrong value is an error. While it runs, it is none: what was right last stays in
force, with one warning, since the typo in a kill switch or a file that is being written must not stop a program.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar, get_args

from cachepoint.bedrock.warn import warn_once
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.catalogue.table import RULES_VARIABLE, ModelTable, load_table
from cachepoint.core.planning.policy import CachePolicy, Mode
from cachepoint.errors import ConfigurationError

MODE_VARIABLE = "CACHEPOINT_MODE"
_T = TypeVar("_T")


class _Setting(Generic[_T]):
    """One thing that the environment says: `read` gives it, or raises ConfigurationError where it is wrong."""

    def __init__(self, variable: str, read: Callable[[], _T], otherwise: Callable[[], _T]) -> None:
        self._variable, self._read = variable, read
        self._last: tuple[str, Callable[[], _T]] = ("", otherwise)

    def stated(self) -> _T:
        """What the environment says now; raises ConfigurationError where that is wrong."""
        value = self._read()
        self._last = os.environ.get(self._variable, "").strip(), lambda: value
        return value

    def in_force(self) -> _T:
        """The same, or what it said when it was right last; what it would be by default where it never was."""
        try:
            return self.stated()
        except ConfigurationError as error:
            said, value = self._last
            stays = f"{self._variable}={said!r:.80} stays in force, as it was read" if said else "it counts as unset"
            # Once for each value: a file that is being written is wrong in more than one way.
            warn_once(
                f"environment:{self._variable}={os.environ.get(self._variable)}",
                f"cachepoint: {error}. Until then {stays}",
            )
            return value()


def _mode() -> Mode | None:
    given = os.environ.get(MODE_VARIABLE, "").strip().lower()
    for known in get_args(Mode):
        if given == known:
            mode: Mode = known
            return mode
    if given:
        raise ConfigurationError(f"{MODE_VARIABLE}={given!r:.80}: use one of {get_args(Mode)}, or unset it")
    return None


_MODE: _Setting[Mode | None] = _Setting(MODE_VARIABLE, _mode, lambda: None)
_TABLE: _Setting[ModelTable] = _Setting(RULES_VARIABLE, load_table, lambda: load_table({}))


def stated_mode(policy: CachePolicy) -> CachePolicy:
    """The policy in the mode that CACHEPOINT_MODE names, if any; raises ConfigurationError where that is no mode."""
    return _in(_MODE.stated(), policy)


def mode_in_force(policy: CachePolicy) -> CachePolicy:
    """The same while a program runs: a wrong value changes nothing."""
    return _in(_MODE.in_force(), policy)


def _in(mode: Mode | None, policy: CachePolicy) -> CachePolicy:
    return policy if mode is None else policy.in_mode(mode)


def stated_table() -> ModelTable:
    """The model table with the rows of the file that CACHEPOINT_RULES names; raises RulesError where that is wrong."""
    return _TABLE.stated()


def table_in_force() -> ModelTable:
    """The same while a program runs: a file that is wrong or gone changes nothing."""
    return _TABLE.in_force()


@lru_cache(maxsize=4)
def prices_by(table: ModelTable) -> PriceBook:
    """The prices that go with a table, made once, for they are asked for with every call."""
    return PriceBook(table=table)
