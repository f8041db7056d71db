"""Which nodes host which functions, as plain data structures with an injected clock.

`plan` chooses hosts, `node_states` follows nodes, `routing_table` chooses the replica of each call. Nothing here has
sockets, processes or threads.
"""
