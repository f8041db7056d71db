"""What runs functions: the contract in `base`, and one folder per platform."""
