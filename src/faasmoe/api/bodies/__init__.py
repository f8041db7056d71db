"""Checks of request bodies for every API: structure, shapes of values, wording of errors, prompts to token ids."""
