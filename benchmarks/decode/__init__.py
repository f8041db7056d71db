"""`python -m benchmarks.decode`: what a token costs, beside other engines and beside what the machine can do."""
