"""The embedded platform: a daemon that forks an instance per function on this machine. Needs nothing installed.

`platform` is what users hold, `client` calls functions, `daemon` starts and stops instances, `instance` runs
a function, `protocol` is what they say to each other, `supervisor` keeps a daemon running.
"""
