"""What other exporters' series are called: foreign.toml, with the source of every row."""
