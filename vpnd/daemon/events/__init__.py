"""What the daemon says: events, their text, and the log."""
