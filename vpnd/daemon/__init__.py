"""The process: sockets, interfaces, routes, the clock, and the one place where effects happen."""
