"""How old what is under way is: counts by time of beginning, told apart less finely the older they are."""

from __future__ import annotations

from array import array
from bisect import bisect_right

FINEST = 5.0
"""Seconds within which beginnings are not told apart: a third of the first bucket."""
RESOLUTION = 5**0.5 - 2
"""Beginnings this share of their age apart are not told apart: buckets are a factor of about three wide.

No ratio of whole numbers, or requests on an even beat would be told apart or not by the rounding of their times.
"""


class Ages:
    """Counts of what began when, in some thirty slots an hour however many there are.

    A slot keeps its first beginning, its count and the mean of its beginnings. So nothing has to be left
    out when there are many, which would leave out the slow ones and make returns look rarer than they are.
    """

    __slots__ = ("_counts", "_later", "_starts")

    def __init__(self) -> None:
        self._starts: array[float] = array("d")
        self._counts: array[int] = array("q")
        self._later: array[float] = array("d")  # seconds of all beginnings after the start of their slot

    def __len__(self) -> int:
        return sum(self._counts)

    def slots(self) -> list[tuple[float, int]]:
        """The mean beginning and the count of each slot, oldest first."""
        if not self._starts:
            return []
        slots = zip(self._starts, self._counts, self._later, strict=True)
        return [(start + later / count, count) for start, count, later in slots if count]

    def add(self, at: float, count: int = 1) -> None:
        """More begin, not earlier than the ones before but for calls slightly out of order."""
        if not self._starts or at - self._starts[-1] >= FINEST:
            self._join(at)
            self._starts.append(at)
            self._counts.append(0)
            self._later.append(0.0)
        self._counts[-1] += count
        self._later[-1] += (at - self._starts[-1]) * count

    def remove(self, at: float) -> bool:
        """One that began at this time is over; False where none is known of."""
        slot = bisect_right(self._starts, at) - 1
        if slot < 0:
            return False
        if not self._counts[slot]:
            slot += 1  # one that came slightly out of order is in the slot after that of its time
        if slot == len(self._starts) or not self._counts[slot]:
            return False
        self._take(slot, at)
        return True

    def remove_oldest(self) -> float | None:
        """One of the oldest is over: when it began, as far as it is known; None where none is under way."""
        for slot, count in enumerate(self._counts):
            if count:
                begun = self._starts[slot] + self._later[slot] / count
                self._take(slot, begun)
                return begun
        return None

    def take_before(self, at: float) -> list[tuple[float, int]]:
        """Take out the slots whose mean beginning is before a time, oldest first."""
        taken = []
        while self._starts:
            count = self._counts[0]
            mean = self._starts[0] + (self._later[0] / count if count else 0.0)
            if mean >= at:
                break
            if count:
                taken.append((mean, count))
            self._drop(0)
        return taken

    def put_in(self, other: Ages) -> None:
        """Take over all of the other's."""
        slots = sorted([*self.slots(), *other.slots()])
        self._starts, self._counts, self._later = array("d"), array("q"), array("d")
        for mean, count in slots:
            self.add(mean, count)

    def _take(self, slot: int, at: float) -> None:
        self._counts[slot] -= 1
        self._later[slot] = self._later[slot] - (at - self._starts[slot]) if self._counts[slot] else 0.0

    def _join(self, now: float) -> None:
        """Slots that are close together for their age become one."""
        slot = 0
        while slot + 1 < len(self._starts):
            end = self._starts[slot + 2] if slot + 2 < len(self._starts) else now
            if end - self._starts[slot] > RESOLUTION * (now - end):
                slot += 1
                continue
            apart = self._starts[slot + 1] - self._starts[slot]
            self._later[slot] += self._later[slot + 1] + self._counts[slot + 1] * apart
            self._counts[slot] += self._counts[slot + 1]
            self._drop(slot + 1)

    def _drop(self, slot: int) -> None:
        del self._starts[slot], self._counts[slot], self._later[slot]
