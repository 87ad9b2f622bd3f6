"""Recorded hosts that the whole pipeline can be run on, for people who have no such host at hand."""
