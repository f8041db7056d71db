"""What a client tells of its cluster, put together from what nodes report."""
