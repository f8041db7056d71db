"""transformers' converter of tokenizers in GGUF files, and what it knows of them."""

from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)

__all__ = ["GGUF_PRE_TOKENIZER_SPLITS", "GGUF_TOKENIZER_MAPPING", "convert_gguf_tokenizer"]
