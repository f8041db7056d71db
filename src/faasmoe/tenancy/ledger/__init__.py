"""What tenants have used, and who pays for idle instances."""
