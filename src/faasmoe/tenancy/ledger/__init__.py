"""The ledger of usage, its sums, and the split of idle cost."""
