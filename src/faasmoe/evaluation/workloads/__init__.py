"""Workloads: requests for a system under test, plain data that is the same for every strategy, repeatable by seeds."""
