"""Chats as all APIs share them: tools, reasoning, and what a model's text says of either. No words of any API."""
