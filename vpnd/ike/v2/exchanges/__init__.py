"""The exchanges of IKEv2: what each request means, ours and the peer's, and its answers."""
