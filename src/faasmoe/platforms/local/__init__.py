"""The embedded platform: a daemon that forks an instance per function on this machine. Needs nothing installed.

`platform` is the client, `daemon` starts and stops, `instance` runs a function, `wire` frames messages.
"""
