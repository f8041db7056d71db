"""Who belongs to a cluster: its authority, certificates, tokens to join and members. Opens no connection."""
