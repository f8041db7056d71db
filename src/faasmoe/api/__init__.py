"""The gateway: an HTTP server that speaks OpenAI's API."""
