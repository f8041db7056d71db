"""Constrained sampling: grammars, compiled for a tokenizer, and the place of a sequence in its grammar."""
