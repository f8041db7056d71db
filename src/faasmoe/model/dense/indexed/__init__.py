"""Indexed attention: each token attends to the positions that an indexer selects (DeepSeek-V3.2, GLM-5)."""
