"""The expert function, which is shipped to a platform. Needs numpy, and of this project only `errors`."""

HANDLER = "faasmoe.experts.handler:load"  # how a platform loads one: module and attribute
PRELOAD = (HANDLER.partition(":")[0],)  # modules that a platform's instances may import before they load one
