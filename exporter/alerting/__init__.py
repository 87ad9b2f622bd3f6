"""From conditions to people: the Prometheus rules made from the table of conditions."""
