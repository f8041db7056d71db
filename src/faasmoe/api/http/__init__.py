"""HTTP below any API: the server, limits on heads and bodies, disconnects, the request log."""
