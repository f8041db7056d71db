"""Helpers that any process may use: processes, log lines, folders, the limits of the machine."""
