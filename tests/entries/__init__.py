"""Entries and planted faults, one file a topic: ENTRIES and FAULTS of each are read."""
