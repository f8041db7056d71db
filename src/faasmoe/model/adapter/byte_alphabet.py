"""GPT-2's alphabet, in which byte-level tokenizers spell tokens: a letter for every byte. Needs no torch."""

from transformers.convert_slow_tokenizer import bytes_to_unicode

__all__ = ["bytes_to_unicode"]
