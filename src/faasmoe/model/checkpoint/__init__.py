"""A checkpoint's files: source, folder, headers, index, and JSON from untrusted sources."""
