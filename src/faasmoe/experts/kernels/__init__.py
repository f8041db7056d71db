"""Arithmetic of experts, compiled."""
