"""Capacity exporter for hosts that serve DeepSeek models."""

__version__ = "0.1.0"
__revision__ = ""
"""Commit this was built from; a release build fills it in."""
