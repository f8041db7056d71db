"""Functions on several machines: a client in gateway and orchestrators, and an agent on each node."""
