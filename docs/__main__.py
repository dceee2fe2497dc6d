"""`python -m docs [DIRECTORY]`: the site, in build/docs if nothing else is named. A warning is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from docs import generate

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the sources, then let Sphinx build them; returns its exit status."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs"
    source = place.with_name(f"{place.name}-source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    generate.write(source)
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--fresh-env"]
    build = [sys.executable, "-m", "sphinx", "-b", "html", *options, str(source), str(place)]
    done = subprocess.run(build, check=False)
    if done.returncode == 0:
        print(f"{place / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
