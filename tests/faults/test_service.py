"""From an empty Debian with systemd to a tunnel, by the package and what README says, and back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.lab.guest import Guest
from tests.lab.lab import Lab
from tests.lab.plan import PSK, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow, pytest.mark.full_faults]

# The guest is b; strongSwan at a speaks for the other gateway.
PLAN = Plan(name="branch", routed=True, local=A, remote=B)
ANSWERS = f"hq\nbranch\n{A.address}\n{B.address}\nikev2\n{A.networks[0]}\nactive\n{PSK}\n{PSK}\n"
BOOT = 1800.0
INSTALL = 1800.0
"""Seconds for apt-get and for a start, in an emulated machine that others keep from its processor."""
PYTHON = (3, 11)
"""Of Debian 12, which the guest is."""
UNHURRIED = {
    "vpnd": "[Service]\nTimeoutStartSec=infinity\nTimeoutStopSec=infinity\nWatchdogSec=600\n",
    "vpnd-guard": "[Service]\nTimeoutStopSec=infinity\n",
}
"""The units' limits are for machines, not for one that is emulated on a busy one."""


@dataclass
class Installed:
    """The guest with the package, and strongSwan at the other end of its wire."""

    guest: Guest
    peer: StrongSwan

    def status(self) -> dict[str, object]:
        """The one tunnel of `vpnctl --json status`."""
        tunnels: list[dict[str, object]] = json.loads(self.guest.run("vpnctl --json status").stdout)[
            "tunnels"
        ]
        return tunnels[0]

    def is_up(self) -> bool:
        """Whether the daemon answers and says that the tunnel is up."""
        done = self.guest.run("vpnctl --json status", check=False)
        return done.returncode == 0 and json.loads(done.stdout)["tunnels"][0]["state"] == "up"

    def main_pid(self) -> str:
        """The daemon's process, 0 without one."""
        return self.guest.run("systemctl show -p MainPID --value vpnd").stdout.strip()

    def is_another(self, before: str) -> bool:
        """Whether another process than this one is the daemon."""
        return self.main_pid() not in (before, "0")

    def journal(self) -> str:
        """What the units have logged."""
        return self.guest.run("journalctl --no-pager -n 60 -u vpnd -u vpnd-guard", check=False).stdout

    def is_proved(self) -> bool:
        """Whether the rekey that IKEv2 proves early, seconds after a start, is over."""
        done = self.guest.run("vpnctl --json events", check=False)
        kinds = [json.loads(line)["event"] for line in done.stdout.splitlines() if done.returncode == 0]
        since = max((at for at, kind in enumerate(kinds) if kind == "starting"), default=0)
        return "rekeyed" in kinds[since:]

    def wait_up(self) -> None:
        """Wait until the tunnel is up, and at rest, and echoes pass."""
        try:
            wait_until(self.is_up, "the tunnel to be up", BOOT, interval=2)
            wait_until(self.is_proved, "its early rekey", BOOT, interval=2)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.journal()}") from None
        answered = self.guest.ping(B.inside, A.inside)
        assert answered == 5, self.journal()


def compile_for(package: Path, files: Path) -> None:
    """Put the package's bytecode into `files`, which an emulated machine takes a quarter of an hour to make.

    Without it, on a machine with another Python, each program compiles what it imports.
    """
    tree = files.parent / "tree"
    subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)
    if sys.version_info[:2] == PYTHON:
        how = ("-q", "-s", str(tree), "-p", "/", "--invalidation-mode", "unchecked-hash")
        subprocess.run([sys.executable, "-m", "compileall", *how, str(tree / "usr/lib/vpnd")], check=True)
    found = sorted(str(path.relative_to(tree)) for path in tree.rglob("__pycache__"))
    subprocess.run(
        ["tar", "-cf", str(files / "compiled.tar"), "-C", str(tree), *found, "-T", "/dev/null"], check=True
    )
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """README's Install section, command by command, in a guest that has only what the package depends on."""
    subprocess.run(["bash", "contrib/deb.sh", "12"], check=True)
    (package,) = Path("build/deb").glob("*~deb12_*.deb")
    files = tmp_path_factory.mktemp("files")
    shutil.copy(package, files)
    compile_for(package, files)
    (files / "answers").write_text(ANSWERS)
    for unit, text in UNHURRIED.items():
        (files / unit).write_text(text)
    with Lab() as lab:
        namespace = lab.namespace("a")
        with Guest(namespace, f"{B.address}/24", (f"{B.inside}/32",), systemd=True, files=files) as guest:
            namespace.add_address(f"{A.address}/24", "eth0")
            namespace.add_address(f"{A.inside}/32")
            peer = StrongSwan(namespace)
            peer.add(PLAN)
            # Compiled it comes from here.
            guest.run("ln -sf /bin/true /usr/bin/py3compile")
            guest.run(f"apt-get -y install /mnt/{package.name}", timeout=INSTALL)
            guest.run("tar -xf /mnt/compiled.tar -C /")
            for unit in UNHURRIED:
                guest.run(f"install -D /mnt/{unit} /run/systemd/system/{unit}.service.d/unhurried.conf")
            guest.run("systemctl daemon-reload")
            guest.run("vpnd init </mnt/answers")
            guest.run("vpnd check")
            guest.run("systemctl enable --now vpnd", timeout=INSTALL)
            yield Installed(guest, peer)


def test_the_tunnel_comes_up(installed: Installed, row: TellRow) -> None:
    installed.wait_up()
    assert installed.guest.run("systemctl is-active vpnd vpnd-guard").stdout.split() == ["active", "active"]
    assert PSK not in installed.journal()
    row("service", case="from the package to a tunnel", figure="5 commands after the package is built")


def test_the_guard_comes_with_the_service(installed: Installed) -> None:
    assert "inet vpnd" in installed.guest.run("nft list tables").stdout
    assert "enabled" in installed.guest.run("systemctl is-enabled vpnd-guard").stdout


def test_a_reload_of_a_wrong_file_fails_and_changes_nothing(installed: Installed, row: TellRow) -> None:
    installed.wait_up()
    installed.guest.run("cp /etc/vpnd/vpnd.toml /run/good; echo nonsense = 1 >>/etc/vpnd/vpnd.toml")
    refused = installed.guest.run("systemctl reload vpnd", check=False)
    installed.guest.run("cp /run/good /etc/vpnd/vpnd.toml")
    assert refused.returncode != 0
    assert "nonsense" in installed.journal()
    assert installed.is_up()
    installed.guest.run("systemctl reload vpnd")
    assert installed.is_up()
    row("service", case="systemctl reload of a wrong file", figure="fails, the tunnel stays up")


def test_it_comes_back_after_a_kill_and_a_restart(installed: Installed, row: TellRow) -> None:
    installed.wait_up()
    for command in ("systemctl kill -s KILL vpnd", "systemctl restart vpnd"):
        before = installed.main_pid()
        installed.guest.run(command, timeout=INSTALL)
        wait_until(partial(installed.is_another, before), "another process", BOOT, interval=1)
        installed.wait_up()
    row("service", case="kill -9, restart", figure="up again")


def test_pages_and_completion_are_there(installed: Installed) -> None:
    for page in ("vpnd.8", "vpnctl.8", "vpnd.toml.5"):
        text = installed.guest.run(f"gzip -dc /usr/share/man/man{page[-1]}/{page}.gz | man -l - 2>&1").stdout
        assert "NAME" in text
    # The first answers of an emulated daemon take longer than completion waits for one.
    wait_until(lambda: completed(installed, "vpnctl up br") == ["branch"], "the name to be completed", BOOT)


def completed(installed: Installed, line: str) -> list[str]:
    """What the last word of a command line can be."""
    words = f"COMP_WORDS='{line}' COMP_CWORD={line.count(' ')} _VPNCTL_COMPLETE=complete_bash vpnctl"
    return installed.guest.run(words, check=False).stdout.split()


def test_the_unit_is_hardened(installed: Installed, row: TellRow) -> None:
    for unit in ("vpnd", "vpnd-guard"):
        line = installed.guest.run(f"systemd-analyze security {unit} | tail -1").stdout
        score = float(line.split(":")[1].split()[0])
        row("service", case=f"systemd-analyze security {unit}", figure=f"{score}")
        assert score <= 2.0


def test_purge_leaves_the_keys_and_nothing_else(installed: Installed, row: TellRow) -> None:
    guest = installed.guest
    guest.run("apt-get -y purge vpnd", timeout=INSTALL)
    assert "inet vpnd" not in guest.run("nft list tables").stdout
    assert guest.run("ip rule; ip route show table all; ip -br link").stdout.count("vpn-") == 0
    left = guest.run(
        "find / -xdev -path /proc -prune -o \\( -name 'vpnd*' -o -name 'vpnctl*' \\) -print"
        " | grep -v -e ^/proc -e ^/mnt -e ^/sys -e ^/run/good -e ^/var/log -e ^/run/systemd",
        check=False,
    ).stdout.split()
    assert left == ["/etc/vpnd"], left
    assert guest.run("find /etc/vpnd -type f").stdout.split() == ["/etc/vpnd/psk/branch"]
    row("service", case="purge", figure="the keys stay, nothing else")
