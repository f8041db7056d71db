"""Tenants, keys, quotas and the usage ledger: not built yet. Until then everybody is one tenant."""
