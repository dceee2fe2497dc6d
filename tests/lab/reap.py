"""`python -m tests.lab.reap`: remove what interrupted runs left behind."""

from __future__ import annotations

from tests.lab.owner import reap


def main() -> None:
    """Print each thing that was removed."""
    for line in reap():
        print(f"removed {line}")


if __name__ == "__main__":
    main()
