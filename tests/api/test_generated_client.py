"""A client in TypeScript, generated from the OpenAPI document by openapi-typescript, compiles and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from contrib import sdk_models
from tests.api.conftest import Served

CLIENT = Path(__file__).parent / "client"


def run(directory: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_a_client_in_typescript(served: Served, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    made = tmp_path / "client"
    shutil.copytree(CLIENT, made)
    (made / "openapi.json").write_text(json.dumps(sdk_models.document()))
    run(made, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error")
    # What has a default may be left out of a request.
    optional = "--default-non-nullable=false"
    run(made, "npx", "openapi-typescript", "openapi.json", "--output", "api.d.ts", optional)
    run(made, "npx", "tsc")
    environment = {
        "NODE_EXTRA_CA_CERTS": served.certificate,
        "VPND_URL": served.url,
        "VPND_ADMIN": served.admin,
        "VPND_READ": served.read,
    }
    assert run(made, "node", "made/smoke.js", **environment) == "done\n"
