"""Names of flags by engine: how many words each takes. Sources stand in the files."""
