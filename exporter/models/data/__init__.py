"""Tables of models and formats, with their sources."""
