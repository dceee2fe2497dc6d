"""Gateways in one process, with a clock and a network that are made up: what two configurations come to."""
