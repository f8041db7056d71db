"""A process that loads something once and forks children that have it, and the client that gives it orders."""
