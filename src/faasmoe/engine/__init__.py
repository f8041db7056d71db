"""Runs requests: scheduler, batch, usage."""
