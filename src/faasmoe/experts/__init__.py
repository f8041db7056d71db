"""The expert function: what is shipped to a platform. Needs torch and nothing else of this project."""
