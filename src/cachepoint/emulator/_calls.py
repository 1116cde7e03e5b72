"""The calls that came in: the last ones each for itself, those before them as a sum."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from cachepoint.emulator._bill import Earlier, ServedCall, line_of
from cachepoint.errors import EmulatorError


class Calls:
    """Calls in order of arrival, numbered; the last `keep` of them, or all when None.

    A call that goes is priced and added to `earlier`.
    """

    def __init__(self, keep: int | None = None) -> None:
        if keep is not None and not (type(keep) is int and keep >= 1):
            raise EmulatorError(f"keep_calls is {keep!r:.80}; give 1 or more, or None to keep every call")
        self._keep = keep
        self._kept: OrderedDict[int, ServedCall] = OrderedDict()
        self._came = 0
        self.earlier = Earlier()

    @property
    def came(self) -> int:
        """How many calls came in so far."""
        return self._came

    def add(self, call: ServedCall) -> int:
        """Keep a call and return its number."""
        number, self._came = self._came, self._came + 1
        self._kept[number] = call
        if self._keep is not None and len(self._kept) > self._keep:
            _, gone = self._kept.popitem(last=False)
            line = line_of(gone)
            if line is not None:
                self.earlier = self.earlier.with_line(line)
        return number

    def mark(self, number: int, *, delivered: bool) -> None:
        """Note whether a call's answer reached its caller, where the call is still kept."""
        if number in self._kept:
            self._kept[number] = replace(self._kept[number], delivered=delivered)

    def kept(self) -> list[ServedCall]:
        """The calls that are kept, in order."""
        return list(self._kept.values())
