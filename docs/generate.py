"""The sources of the site in one directory: what is written by hand, and what is generated."""

from __future__ import annotations

import shutil
from pathlib import Path

from docs import states
from docs.configuration import configuration_page
from docs.diagnoses import diagnoses_page

ROOT = Path(__file__).resolve().parents[1]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
FRAME = ("index.md", "conf.py")
"""What the site begins with, and how Sphinx builds it. All else is where it is in the checkout, so that links
lead to each other in both."""


def write(place: Path) -> None:
    """Write every source below `place`."""
    (place / "docs").mkdir(parents=True)
    for name in AT_THE_TOP:
        shutil.copy(ROOT / name, place)
    for name in FRAME:
        shutil.copy(ROOT / "docs" / name, place)
    for page in (ROOT / "docs").glob("*.md"):
        if page.name not in FRAME:
            shutil.copy(page, place / "docs")
    for name, text in generated().items():
        (place / name).write_text(text)


def generated() -> dict[str, str]:
    """The generated pages by the names of their files."""
    return {"configuration.md": configuration_page(), "diagnoses.md": diagnoses_page(), **states.pages()}
