"""A daemon in a thread: the client that waits cannot share a loop with it."""

from tests.unit.control.conftest import remote

__all__ = ["remote"]
