"""GGUF files: header, metadata as a config and a tokenizer, tensors by the model's names."""
