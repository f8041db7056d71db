"""A checkpoint's JSON files, which nobody trusts."""
