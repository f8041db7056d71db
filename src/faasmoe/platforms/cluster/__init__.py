"""Functions on several machines: what the platforms of clusters share."""
