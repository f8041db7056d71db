"""The node agent: the embedded platform of one node, and a listener for clients elsewhere."""
