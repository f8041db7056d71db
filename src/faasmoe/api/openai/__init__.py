"""OpenAI's API: bodies, responses, errors."""
