"""The zygote, and the instances that it forks."""
