"""Measurements of this machine, and of dltrain beside what people would use instead, on the same work."""
