"""Every row of the league, by module; a module that brings rows has a tuple of workloads and is named here."""

from __future__ import annotations

from capture_lib.requests import Workload
from capture_lib.workloads import WORKLOADS

from league_lib import agents, chats, places, rag, real

SYNTHETIC: tuple[Workload, ...] = (*rag.ROWS, *chats.ROWS, *agents.ROWS, *WORKLOADS)
"""Made-up traffic in one place, quick to play."""
ROWS: tuple[Workload, ...] = (*SYNTHETIC, *places.ROWS, *real.ROWS)
