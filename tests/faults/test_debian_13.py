"""The package for Debian 13, in the userland of that release."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.plan import PSK, A, B
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

ROOT = Path("build/trixie")
INCLUDED = "python3,iproute2,nftables,systemd,systemd-sysv,apparmor"
ANSWERS = f"hq\nbranch\n{A.address}\n{B.address}\nikev2\n{A.networks[0]}\nactive\n{PSK}\n{PSK}\n"


def inside(command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a shell command in there, with a /proc and processes of its own."""
    words = ["unshare", "--mount", "--pid", "--fork", f"--root={ROOT}", "--mount-proc", "/bin/sh", "-c"]
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["env", "-i", path, "DEBIAN_FRONTEND=noninteractive", *words, command],
        input=ANSWERS, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout
    return done


@pytest.fixture
def package() -> Path:
    """The package; and the userland, which is made once."""
    if shutil.which("debootstrap") is None:
        pytest.skip("no debootstrap on this machine")
    if not (ROOT / "ready").exists():
        shutil.rmtree(ROOT, ignore_errors=True)
        ROOT.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "trixie", str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (ROOT / "ready").touch()
    subprocess.run(["bash", "contrib/deb.sh", "13"], check=True)
    (found,) = Path("build/deb").glob("*~deb13_*.deb")
    return found


def test_it_installs_and_checks(package: Path, row: TellRow) -> None:
    shutil.copy(package, ROOT / "vpnd.deb")
    try:
        assert inside("cat /etc/debian_version").stdout.startswith("13")
        inside("apt-get -y install /vpnd.deb </dev/null")
        inside("vpnd init")
        checked = inside("vpnd check").stdout
        assert "0 errors, 0 warnings" in checked
        inside("echo nonsense = 1 >>/etc/vpnd/vpnd.toml")
        assert "unknown key" in inside("! vpnd check").stdout
        inside("apparmor_parser --skip-kernel-load --skip-cache /etc/apparmor.d/vpnd")
        python = inside("python3 -V").stdout.strip()
    finally:
        inside("apt-get -y purge vpnd </dev/null; rm -rf /etc/vpnd /vpnd.deb", check=False)
    row("service", case=f"Debian 13, {python}", figure=f"installed; vpnd check: {checked.strip()}")
