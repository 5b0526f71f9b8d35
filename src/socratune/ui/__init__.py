"""The report live while a run works, and the review of single traces: `socratune ui`."""
