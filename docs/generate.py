"""The sources of the site in one directory: what is written by hand, and what is generated."""

from __future__ import annotations

import shutil
from pathlib import Path

from docs import states
from docs.configuration import configuration_page
from docs.diagnoses import diagnoses_page

ROOT = Path(__file__).resolve().parents[1]
BY_HAND = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/index.md", "docs/conf.py")
"""These stand side by side in the site as well, so their links lead to each other."""


def write(place: Path) -> None:
    """Write every source below `place`."""
    place.mkdir(parents=True)
    for name in BY_HAND:
        shutil.copy(ROOT / name, place)
    for name, text in generated().items():
        (place / name).write_text(text)


def generated() -> dict[str, str]:
    """The generated pages by the names of their files."""
    return {"configuration.md": configuration_page(), "diagnoses.md": diagnoses_page(), **states.pages()}
