"""Says beforehand what serving a model to tenants will take, and with which settings it takes least."""
