"""Facts that config.json and generation_config.json alone can tell."""
