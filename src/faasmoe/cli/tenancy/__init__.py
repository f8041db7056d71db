"""`faasmoe tenants`, `keys`, `usage` and `database`."""
