"""The dense part: attention, linear layers, norms, rotary embedding."""
