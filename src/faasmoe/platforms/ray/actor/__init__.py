"""What Ray runs on a node: an actor, and the agent that it starts in a process of its own."""
