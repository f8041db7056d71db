"""Prometheus series of the gateway, and collectors of other processes' stats."""
