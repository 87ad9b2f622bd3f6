"""What the host is made of, read from drivers and the kernel. GPU drivers live in worker processes."""
