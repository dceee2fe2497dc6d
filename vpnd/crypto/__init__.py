"""Primitives, every one from pyca/cryptography, behind one table of suites."""
