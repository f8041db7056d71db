"""Ranges of tenants' settings. It imports nothing, so that options of commands can name them before anything starts."""

from __future__ import annotations

WEIGHTS = (0.001, 1000)
MOST_LIMIT = 10**12  # of requests and tokens; more is no limit
