"""What a program imports before it is of use: a second of imports is a second without tunnels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTED = "import json, sys, {}; print(json.dumps(sorted(sys.modules)))"
API = ("fastapi", "uvicorn", "vpnd.control.server", "vpnd.control.api")
"""A third of all that the daemon imports."""


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        pytest.param("vpnd.daemon.main", ("pydantic", "cryptography", "pyroute2"), id="vpnd"),
        pytest.param("vpnd.config.compile, vpnd.control.check", (*API, "pyroute2"), id="vpnd-check"),
        pytest.param(
            "vpnd.config.compile, vpnd.control.check, vpnd.daemon.guarding",
            (*API, "vpnd.daemon.service"),
            id="vpnd-guard",
        ),
        pytest.param("vpnd.daemon.run", API, id="vpnd-run"),
        pytest.param(
            "vpnd.control.cli, vpnd.sdk.transport", (*API, "pydantic", "rich", "aiohttp"), id="vpnctl"
        ),
        pytest.param("vpnd.sdk", ("asyncio", "h11", "dataclasses"), id="sdk-until-used"),
        pytest.param(
            "vpnd.sdk.client",
            (
                *API,
                "asyncio",
                "pydantic",
                "cryptography",
                "typer",
                "rich",
                "pyroute2",
                "aiohttp",
            ),
            id="sdk",
        ),
    ],
)
def test_what_can_wait_is_not_imported(modules: str, without: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(modules)], capture_output=True, check=True, cwd=ROOT
    )
    assert set(json.loads(done.stdout)).intersection(without) == set()
