"""The orchestrator: schedules tokens of many requests, runs the dense part, and invokes the routed experts."""
