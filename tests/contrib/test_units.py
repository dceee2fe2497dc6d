"""What systemd says of the units that are shipped; no systemd has to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tables import TellRow

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
PROFILE = Path(__file__).parents[2] / "contrib/apparmor/vpnd"
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in UNITS:
        text = re.sub(r"/usr/bin/vpn(d|ctl)\b", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if "vpnd" in line] == []
    assert done.returncode == 0, done.stderr


def test_every_unit_is_confined_by_a_profile_that_is_shipped() -> None:
    profiles = set(re.findall(r"^profile (\S+)", PROFILE.read_text(), re.MULTILINE))
    named = {re.findall(r"^AppArmorProfile=-(.+)$", unit.read_text(), re.MULTILINE)[0] for unit in UNITS}
    assert named == profiles == {"vpnd", "vpnd-console"}


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="no apparmor_parser on this machine")
def test_apparmor_understands_the_profile() -> None:
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", str(PROFILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_another_start_does_not_mend_is_not_started_again() -> None:
    """A wrong configuration, no program, no group, no user, no credential (systemd.exec(5))."""
    for unit in UNITS:
        text = unit.read_text()
        if "Restart=on-failure" in text:
            assert "RestartPreventExitStatus=2 203 216 217 243\n" in text


def test_networkd_leaves_the_guard_alone() -> None:
    """It takes away at its start what it has not made, unless it is set not to."""
    told = (UNITS[0].parent / "networkd.conf.d/60-vpnd.conf").read_text()
    assert "\nManageForeignRoutes=no\n" in told
    assert "\nManageForeignRoutingPolicyRules=no\n" in told
    assert "networkd.conf.d/60-vpnd.conf" in (UNITS[0].parents[1] / "contrib/stage.sh").read_text()
