"""From the router's choice to calls of functions and back."""
