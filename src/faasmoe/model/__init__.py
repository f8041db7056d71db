"""The model: what lies in its checkpoint, how its experts fall into blocks, and the dense part that runs here."""
