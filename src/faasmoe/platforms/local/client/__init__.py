"""The client of a pool, in an orchestrator: calls functions, and asks the daemon for instances."""
