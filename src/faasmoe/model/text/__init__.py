"""Tokenizer, prompts, conversations. No torch."""
