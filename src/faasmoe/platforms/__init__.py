"""What runs functions: the contract in `base`, and one folder per platform."""

DEFAULT = "local"  # name of the platform that is taken if no other is asked for
