"""The faults of the network, of the peer and of this machine, each with the figure it has to keep."""
