"""The daemon: functions, instances, memory."""
