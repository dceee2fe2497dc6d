"""What keeps configured tunnels able to work: interfaces, addresses, names of peers, repairs, probes."""
