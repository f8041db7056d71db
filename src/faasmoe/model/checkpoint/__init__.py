"""A checkpoint's files: source, index, layout, blocks, quantised copies."""
