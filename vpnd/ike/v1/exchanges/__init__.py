"""The exchanges of IKEv1, each with both roles: what its messages do to an ISAKMP SA."""
