"""What crosses between clients and agents: frames over TCP, messages, and the handshake."""
