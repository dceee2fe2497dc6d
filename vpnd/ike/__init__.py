"""The two key exchange protocols, sans-I/O: told the time, the randomness and the datagrams."""
