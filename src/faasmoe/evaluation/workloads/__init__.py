"""What is asked of a system under test: pure data, the same for every strategy. Seeds make it repeatable."""
