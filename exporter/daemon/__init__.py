"""The running daemon: polls, schedules slower work, reloads, talks to the service manager and to `ctl`."""
