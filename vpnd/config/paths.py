"""Where things are unless the operator says otherwise."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIG = Path("/etc/vpnd/vpnd.toml")
DEFAULT_STATE = Path("/var/lib/vpnd")
DEFAULT_SOCKET = Path("/run/vpnd/vpnd.sock")
DEFAULT_CONSOLE_STATE = Path("/var/lib/vpnd-console")
