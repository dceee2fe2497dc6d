"""schemathesis reads the OpenAPI document and tries the API by it: every check, for ten minutes.

SECONDS=60 and SEED=7 in the environment say how long, and which of its cases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.conftest import Served

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("SECONDS") or 600)
SEED = os.environ.get("SEED") or "1"


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_is_found(served: Served, tmp_path: Path) -> None:
    program = shutil.which("schemathesis", path=os.environ.get("VPND_SCHEMATHESIS") or None)
    if program is None:
        pytest.skip("schemathesis is not installed: make api")
    command = [
        *(program, "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{served.url}/v1/openapi.json", "--tls-verify", served.certificate),
        *("-H", f"Authorization: Bearer {served.admin}"),
        *("--checks", "all", "--continue-on-failure"),
        *("--max-time", str(SECONDS), "--seed", SEED),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    # What it keeps for its next run goes with the rest.
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.replace(served.admin, "...") + done.stderr
    assert "0 generated" not in done.stdout
