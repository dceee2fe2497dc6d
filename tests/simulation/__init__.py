"""Real IKE endpoints in one process: a virtual clock, seeded weather, and ladders as expectations."""
