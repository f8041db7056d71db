"""What tenants have used: accounts of requests, the shares of idle instances, and sums over the ledger."""
