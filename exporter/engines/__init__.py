"""What serves models on this host: which processes belong to which engine."""
