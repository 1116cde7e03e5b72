"""`python -m cachepoint`: the command line."""

from __future__ import annotations

from cachepoint.cli import main

raise SystemExit(main())
