"""The weights of a model in its checkpoint: layout, blocks, completeness, quantised copies."""
