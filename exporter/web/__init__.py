"""HTTP: prepared bytes out of the latest snapshot, and the bounds that keep slow clients harmless."""
