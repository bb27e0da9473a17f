"""The commands that measure what the lessons show as recorded."""
