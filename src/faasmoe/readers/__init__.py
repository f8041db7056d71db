"""Processes that read the bodies of requests for the gateway."""
