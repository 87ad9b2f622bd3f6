"""Where checkpoints lie: stores on disk, what is in them, what is left of their file systems."""
