"""What systemd says of the units that are shipped; no systemd has to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tables import TellRow

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
MOST = 2.0
"""Exposure, of 10."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_a_unit_is_hardened(unit: Path, row: TellRow) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    row("units", unit=unit.name, exposure=found[1])
    assert float(found[1]) <= MOST, said


def test_the_console_runs_as_a_user_of_its_own_that_is_made() -> None:
    unit = next(unit for unit in UNITS if unit.name == "vpnd-console.service").read_text()
    users = (UNITS[0].parent / "sysusers.d/vpnd.conf").read_text()
    for line in (
        "User=vpnd-console",
        "SupplementaryGroups=vpnd",
        "NoNewPrivileges=yes",
        "InaccessiblePaths=",
    ):
        assert line in unit
    assert "u vpnd-console " in users
    assert "m vpnd-console vpnd" in users
