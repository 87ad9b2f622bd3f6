"""Tables of this floor, each row with its source."""
