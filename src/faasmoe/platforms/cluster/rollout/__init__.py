"""How nodes come to host what a plan wants, without a pause in serving: plain data structures with an injected clock.

`load_meter` knows what is called, `controller` plans and gives orders, `moves` says what may be done now, and `copies`
what is where. Here are no sockets, processes or threads.
"""
