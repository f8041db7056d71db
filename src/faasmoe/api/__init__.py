"""The gateway: an HTTP server that serves one model through several APIs, of which OpenAI's is built."""
