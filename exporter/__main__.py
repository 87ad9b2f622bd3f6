"""`python -m exporter` is `deepseek-exporter`."""

from exporter.cli import main

main(prog_name="deepseek-exporter")
