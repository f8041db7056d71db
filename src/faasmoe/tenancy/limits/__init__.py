"""Rate limits and budgets of tenants."""
