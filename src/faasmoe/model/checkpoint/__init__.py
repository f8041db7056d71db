"""A checkpoint's files: source, folder, headers, index, and JSON that nobody trusts."""
