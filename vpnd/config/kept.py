"""Files of the state directory that other programs read as well."""

from __future__ import annotations

REASONS_FILE = "reasons.json"
"""What `vpnctl why` says of each tunnel, for when the daemon is down; mode 0600."""
