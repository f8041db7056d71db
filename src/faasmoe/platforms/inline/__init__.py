"""Functions in the calling process: what serving costs without a platform, for comparison and for tests."""
