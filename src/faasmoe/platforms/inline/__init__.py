"""The inline platform: functions in the calling process, for comparison and for tests."""
