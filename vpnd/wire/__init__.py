"""Bytes to values and back, and nothing else: no time, no keys, no state."""
