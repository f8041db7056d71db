"""Workloads: requests for a system under test, as plain data, the same for every strategy. Seeds make them repeatable."""
