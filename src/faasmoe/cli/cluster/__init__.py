"""`faasmoe node`, the agent of a machine that runs functions, and `faasmoe nodes`, which lists them."""
