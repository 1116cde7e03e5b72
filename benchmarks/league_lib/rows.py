"""Every row of the league, by module; a module that brings rows has a tuple of workloads and is named here."""

from __future__ import annotations

from capture_lib.requests import Workload
from capture_lib.workloads import WORKLOADS

from league_lib import agents, chats, places, rag, real

ROWS: tuple[Workload, ...] = (*rag.ROWS, *chats.ROWS, *agents.ROWS, *places.ROWS, *real.ROWS, *WORKLOADS)
