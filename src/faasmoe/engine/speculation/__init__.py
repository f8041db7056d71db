"""Speculative decoding without a second model: guesses from the text itself, verified where that has paid."""
