"""Configuration files for the tests: a base that is right, and the line that a mark stands on."""

from __future__ import annotations

from pathlib import Path

from vpnd.config.load import Loaded, load

GATEWAY = """\
[gateway]
name = "hq"
address = "192.0.2.1"

[customer_gateways.branch]
address = "198.51.100.1"

[customer_gateways.other]
address = "203.0.113.7"
"""

KEY = 'pre_shared_key = "plain:correct-horse-battery-staple"'

TUNNEL = f"""
[tunnels.a]
customer_gateway = "branch"
{KEY}
"""

ROUTES = 'routes = ["10.2.0.0/16"]\n'
"""For `TUNNEL`, where a test is about everything that there is to say."""

MARK = "#!"


def write(directory: Path, text: str, name: str = "vpnd.toml", mode: int = 0o600) -> Path:
    """A file that only its owner reads, unless `mode` says otherwise."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def load_text(directory: Path, text: str) -> Loaded:
    """What a main file with this text gives."""
    return load(write(directory, text))


def marked_line(text: str) -> int:
    """The 1-based line with the mark."""
    (line,) = (number for number, content in enumerate(text.splitlines(), 1) if MARK in content)
    return line
