"""The head's part in having orchestrators on nodes."""
