"""The life of a tunnel, sans-I/O: who begins, what is retried, what carries traffic."""
