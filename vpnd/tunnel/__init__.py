"""The life of a tunnel, sans-I/O: it is told what IKE and the datapath report, and says what to do next."""
