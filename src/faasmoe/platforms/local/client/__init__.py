"""In an orchestrator: calls of functions, and orders to the daemon."""
