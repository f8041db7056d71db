"""The `faasmoe` command."""
