"""Workloads, strategies, resource meters, statistics, reports."""
