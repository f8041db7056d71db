"""OpenAI's API: bodies, answers, errors."""
