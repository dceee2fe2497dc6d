"""The web console: pages made on the server, of what the daemon's API says, and of nothing else."""
