"""Every option of the daemon, and how its effective values are found: file < environment < flags."""
