"""Which nodes host which functions, as plain data structures with an injected clock.

`plan` chooses hosts, `node_states` follows nodes, and `routing_table` chooses the replica of each call. Here are no
sockets, processes or threads.
"""
