"""Where a model's weights lie in its checkpoint: layout, blocks, completeness, quantised copies."""
