"""Which nodes host which functions, as plain data structures with an injected clock.

`plan` chooses hosts, `rollout` brings nodes there without a pause in serving, `node_states` follows nodes, `controller`
joins these; `routing_table` chooses the replica of each call, in clients. Here are no sockets, processes or threads.
"""
