"""Metrics: one table of families, collected from a snapshot, rendered once."""
