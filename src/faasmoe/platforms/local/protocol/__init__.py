"""What crosses between client, daemon, zygote and instances."""
