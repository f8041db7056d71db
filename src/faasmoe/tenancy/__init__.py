"""Tenants, their keys and limits, and the ledger of what they have used."""
