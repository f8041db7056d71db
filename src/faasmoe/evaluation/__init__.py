"""Workloads, strategies, resource meters, statistics, reports. So far: the memory meter."""
