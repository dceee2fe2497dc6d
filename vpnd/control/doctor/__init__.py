"""`vpnctl doctor`: live checks of a tunnel and of this machine, each with a verdict and the next step."""
