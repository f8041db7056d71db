"""Usage of tenants: meters of requests and of idle instances, and sums over the ledger."""
