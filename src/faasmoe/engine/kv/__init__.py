"""The KV cache: tensors, allocation, prefix reuse."""
