"""What a sample is."""

from __future__ import annotations

from exporter.exposition.families import Family

Sample = tuple[Family, tuple[str, ...], float]
"""A family, its label values in the family's order, and the value."""
