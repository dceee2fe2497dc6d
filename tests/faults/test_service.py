"""From an empty Debian with systemd to a tunnel, by the package and what README says, and back.

The tests are one story, in this order, in one machine: a container of systemd-nspawn, or one
under qemu, whose kernel has AppArmor (`--machine qemu`).
"""

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

from tests.lab.capture import Capture
from tests.lab.container import Container
from tests.lab.guest import Guest
from tests.lab.lab import Lab, Namespace
from tests.lab.machine import Machine
from tests.lab.plan import PSK, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow, pytest.mark.full_faults]

# The machine is b; strongSwan at a speaks for the other gateway.
PLAN = Plan(name="branch", routed=True, local=A, remote=B)
ANSWERS = f"hq\nbranch\n{A.address}\n{B.address}\nikev2\n{A.networks[0]}\nactive\n{PSK}\n{PSK}\n"
README = Path("README.md")
MOST_COMMANDS = 8
BOOT = 1800.0
INSTALL = 1800.0
"""Seconds for apt-get and for a start, in an emulated machine that others keep from its processor."""
PYTHON = (3, 11)
"""Of Debian 12, which the machine is."""
UNHURRIED = "[Service]\nWatchdogSec=600\n"
"""The watchdog is for machines, not for one that is emulated on a busy one; other limits are as shipped."""
EARLIER = "HEAD~20"
"""The commit of the package that is upgraded."""
CLEAR = f"ip host {A.inside}"
"""What the outer wire must not have: packets between the inner addresses, not inside ESP."""
NETWORK = f"""[Match]
Name=eth0
[Network]
Address={B.address}/24
[Route]
Destination=0.0.0.0/0
Scope=link
"""
INNER = f"[Match]\nName=lo\n[Network]\nAddress={B.inside}/32\n"
EARLY = f"""[Unit]
Description=Protected traffic from the first moment on
DefaultDependencies=no
After=local-fs.target
[Service]
ExecStart=/bin/bash -c 'while :; do ping -n -q -c 5 -i 0.2 -W 1 {A.inside}; sleep 0.2; done'
[Install]
WantedBy=sysinit.target
"""
TRAFFIC = f"systemd-run -q -u traffic bash -c 'while :; do ping -n -q -c 5 -i 0.2 -W 1 {A.inside}; done'"
PLAY = f"""
- hosts: all
  gather_facts: false
  roles:
    - role: vpnd
      vars:
        vpnd_package: PACKAGE
        vpnd_gateway: {{name: hq, address: {B.address}}}
        vpnd_customer_gateways: {{branch: {{address: {A.address}}}}}
        vpnd_tunnels:
          branch: {{customer_gateway: branch, routes: ["{A.networks[0]}"], negotiation: active}}
        vpnd_console: true
"""


@dataclass
class Installed:
    """The machine with the package, and strongSwan at the other end of its wire."""

    guest: Machine
    peer: StrongSwan
    package: Path
    key: Path
    """What signs in by ssh."""

    def install(self, package: str) -> None:
        """Install a package of /mnt, with what was compiled of it outside where the machine is emulated."""
        self.guest.run(f"apt-get -y --allow-downgrades install /mnt/{package}", timeout=INSTALL)
        self.unpack_compiled(package)

    def unpack_compiled(self, package: str) -> None:
        """What the emulated machine does not compile itself."""
        if self.guest.emulated:
            self.guest.run(f"tar -xf /mnt/{package}.tar -C /")

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


def install_commands() -> list[str]:
    """What README's Install section says, without the comments."""
    section = README.read_text().split("\n## Install\n")[1].split("```sh\n")[1].split("```")[0]
    return [line.split("  #")[0].strip() for line in section.splitlines()]


def build(commit: str | None, place: Path) -> Path:
    """The package of a commit, or of this checkout."""
    source = Path.cwd()
    if commit is not None:
        source = place / "earlier"
        source.mkdir()
        archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
        (source / ".venv").symlink_to(Path(".venv").absolute())
    subprocess.run(["bash", "contrib/deb.sh", "12"], check=True, cwd=source)
    (package,) = (source / "build/deb").glob("*~deb12_*.deb")
    return package


def compile_for(package: Path, archive: Path) -> None:
    """Put the package's bytecode into `archive`, which an emulated machine takes long to make.

    Without it, on a machine with another Python, each program compiles what it imports.
    """
    tree = archive.parent.parent / "tree"
    subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)
    if sys.version_info[:2] == PYTHON:
        how = ("-q", "-s", str(tree), "-p", "/", "--invalidation-mode", "unchecked-hash")
        subprocess.run([sys.executable, "-m", "compileall", *how, str(tree / "usr/lib/vpnd")], check=True)
    found = sorted(str(path.relative_to(tree)) for path in tree.rglob("__pycache__"))
    subprocess.run(["tar", "-cf", str(archive), "-C", str(tree), *found, "-T", "/dev/null"], check=True)
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Installed]:
    """README's Install section, command by command, in a machine with what the package depends on."""
    place = tmp_path_factory.mktemp("service")
    files = place / "files"
    files.mkdir()
    shutil.copy(build(EARLIER, place), files / "earlier.deb")
    package = build(None, place)
    shutil.copy(package, files)
    (files / "answers").write_text(ANSWERS)
    (files / "watchdog").write_text(UNHURRIED)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "key")], check=True)
    shutil.copy(place / "key.pub", files)
    with Lab() as lab:
        namespace = lab.namespace("a")
        with machine(request.config.getoption("--machine"), namespace, files) as guest:
            namespace.add_address(f"{A.address}/24", "eth0")
            namespace.add_address(f"{A.inside}/32")
            peer = StrongSwan(namespace)
            peer.add(PLAN)
            guest.run(FOUND.format(at="before"))
            if guest.emulated:
                guest.run("install -D /mnt/watchdog /run/systemd/system/vpnd.service.d/watchdog.conf")
                # Compiled it comes from here.
                guest.run("ln -sf /bin/true /usr/bin/py3compile; sysctl -q -w net.ipv4.ip_forward=0")
            yield Installed(guest, peer, package, place / "key")


def machine(kind: str, namespace: Namespace, files: Path) -> Container | Guest:
    """The machine of this kind, with these files in /mnt."""
    address, inside = f"{B.address}/24", (f"{B.inside}/32",)
    if kind == "container":
        return Container(namespace, address, inside, files)
    for package in files.glob("*.deb"):
        compile_for(package, files / f"{package.name}.tar")
    return Guest(namespace, address, inside, systemd=True, files=files)


@pytest.fixture
def apparmor(installed: Installed) -> None:
    """What needs AppArmor in the machine."""
    if not installed.guest.has_apparmor():
        pytest.skip("no AppArmor in a container: --machine qemu has it")


FOUND = (
    r"find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /var/log -o -path /mnt \) -prune"
    " -o -print | sort >/var/{at}"
)
"""Every file of the guest, in a file of a place that outlives a reboot."""


def test_from_nothing_to_a_tunnel_by_what_the_readme_says(installed: Installed, row: TellRow) -> None:
    """What the checkout and the package take was done outside: no network leads out of the guest."""
    commands = install_commands()
    assert len(commands) <= MOST_COMMANDS
    got, cloned, built, *inside = commands
    assert got.startswith("sudo apt install git make python3")
    assert cloned.startswith("git clone ")
    assert built == "sudo make deb"
    for command in inside:
        command = command.replace("./build/deb/", "/mnt/")
        done = installed.guest.run(
            f"export DEBIAN_FRONTEND=noninteractive; {command} </mnt/answers", timeout=INSTALL, check=False
        )
        assert done.returncode == 0, (command, done.stdout, installed.journal())
        if " apt " in command:
            installed.unpack_compiled(installed.package.name)
        assert PSK not in done.stdout
    installed.wait_up()
    assert installed.guest.run("systemctl is-active vpnd vpnd-guard").stdout.split() == ["active", "active"]
    assert installed.guest.run("sysctl -n net.ipv4.ip_forward").stdout.strip() == "1"
    assert PSK not in installed.journal()
    row("service", case="from nothing to a tunnel", figure=f"{len(commands)} commands")


def test_the_guard_comes_with_the_service(installed: Installed) -> None:
    assert "inet vpnd" in installed.guest.run("nft list tables").stdout
    assert "enabled" in installed.guest.run("systemctl is-enabled vpnd-guard").stdout


@pytest.mark.usefixtures("apparmor")
def test_apparmor_is_enforced(installed: Installed, row: TellRow) -> None:
    guest = installed.guest
    guest.run("systemctl enable --now vpnd-console", timeout=INSTALL)
    for unit, profile in (("vpnd", "vpnd"), ("vpnd-console", "vpnd-console")):
        confined = f"cat /proc/$(systemctl show -p MainPID --value {unit})/attr/current"
        assert guest.run(confined).stdout.strip() == f"{profile} (enforce)"
        read = f"aa-exec -p {profile} -- /usr/bin/python3 -IS -c 'open(\"/etc/shadow\")'"
        refused = guest.run(read, check=False)
        assert refused.returncode != 0
        assert "PermissionError" in refused.stdout
    assert guest.run("python3 -c 'open(\"/etc/shadow\")'", check=False).returncode == 0
    assert denials(installed) == ["/etc/shadow", "/etc/shadow"]
    row("service", case="AppArmor", figure="enforced; /etc/shadow refused to both profiles, as root")


def denials(installed: Installed) -> list[str]:
    """What AppArmor has refused since the machine started."""
    said = installed.guest.run("journalctl -b --no-pager | grep 'apparmor=\"DENIED\"'", check=False).stdout
    # The journal has each twice: from the kernel's log, and from audit.
    found = dict.fromkeys(line[line.index("apparmor=") :] for line in said.splitlines())
    return [text.split('name="')[1].split('"')[0] if 'name="' in text else text for text in found]


def test_secrets_are_unreadable(installed: Installed, row: TellRow) -> None:
    """By others, those of the groups vpnd and vpnd-read too, and in what a process shows of itself."""
    guest = installed.guest
    guest.run("useradd -M stranger; useradd -M -G vpnd changer; useradd -M -G vpnd-read looker")
    for user in USERS:
        for place in ("/etc/vpnd/psk/branch", "/etc/vpnd/psk/.", "/var/lib/vpnd/."):
            assert guest.run(f"runuser -u {user} -- ls {place}", check=False).returncode != 0
            assert guest.run(f"runuser -u {user} -- cat {place}", check=False).returncode != 0
    rights = [(guest_may(guest, user, "status"), guest_may(guest, user, "rekey branch")) for user in USERS]
    assert rights == [(False, False), (True, True), (True, False)]
    shown = guest.run("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; journalctl --no-pager; vpnctl events")
    assert PSK not in shown.stdout
    assert PSK not in guest.run("vpnctl --json show branch; vpnctl trace branch").stdout
    row("service", case="secrets", figure="unreadable for others, and in no output")


USERS = ("stranger", "changer", "looker")
"""Of no group, of vpnd, of vpnd-read."""


def guest_may(guest: Machine, user: str, command: str) -> bool:
    """Whether `vpnctl` does what this user asks for."""
    return guest.run(f"runuser -u {user} -- vpnctl {command}", check=False).returncode == 0


def test_a_file_of_root_is_no_key(installed: Installed, row: TellRow) -> None:
    """By neither the file nor the daemon's socket, and over that no key file at all but for root."""
    guest, name = installed.guest, "/etc/vpnd/vpnd.toml"
    guest.run(f"cp -p {name} /run/good; sed -i 's|file:/etc/vpnd/psk/branch|file:/etc/shadow|' {name}")
    assert "/etc/shadow" in guest.run(f"cat {name}").stdout
    checked = guest.run("vpnd check", check=False)
    reloaded = guest.run("systemctl reload vpnd", check=False)
    guest.run(f"cp -p /run/good {name}; vpnd check")
    assert checked.returncode != 0
    assert "/etc/shadow" in checked.stdout
    assert reloaded.returncode != 0
    assert installed.is_up()
    guest.write("/run/table.json", json.dumps(OTHER))
    guest.run("chmod 644 /run/table.json")
    for user, why in (("root", '"status":422'), ("changer", "E-KEY-SOURCE"), ("looker", '"status":403')):
        said = guest.run(f"runuser -u {user} -- /usr/bin/python3 -c '{PUT}'").stdout
        assert why in said
        assert "root:" not in said
    row("service", case="/etc/shadow as a key", figure="refused by check, reload and the socket")


OTHER = {
    "customer_gateway": {"address": "203.0.113.9"},
    "routes": ["10.77.0.0/16"],
    "pre_shared_key": "file:/etc/shadow",
}
PUT = """
import http.client, socket
connection = http.client.HTTPConnection("vpnd")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/vpnd/vpnd.sock")
kind = {"Content-Type": "application/json"}
try:
    connection.request("PUT", "/v1/tunnels/other", open("/run/table.json"), kind)
except BrokenPipeError:
    pass  # the refusal comes before the body is read
print(connection.getresponse().read().decode())
"""


def test_a_reload_of_a_wrong_file_fails_and_changes_nothing(installed: Installed, row: TellRow) -> None:
    installed.wait_up()
    installed.guest.run("cp /etc/vpnd/vpnd.toml /run/good; echo nonsense = 1 >>/etc/vpnd/vpnd.toml")
    refused = installed.guest.run("systemctl reload vpnd", check=False)
    installed.guest.run("cp /run/good /etc/vpnd/vpnd.toml")
    assert refused.returncode != 0
    warned = installed.guest.run("journalctl --no-pager -p warning -u vpnd").stdout
    assert "nonsense" in warned
    by_field = installed.guest.run("journalctl --no-pager -u vpnd VPND_KIND=reload-refused").stdout
    assert "nothing was changed" in by_field
    assert installed.is_up()
    installed.guest.run("systemctl reload vpnd")
    assert installed.is_up()
    row(
        "service",
        case="systemctl reload of a wrong file",
        figure="fails with the reason, the tunnel stays up",
    )


def test_it_comes_back_after_a_kill_and_a_restart(installed: Installed, row: TellRow) -> None:
    installed.wait_up()
    for command in ("kill -KILL {}", "systemctl restart vpnd"):
        before = installed.main_pid()
        installed.guest.run(command.format(before), timeout=INSTALL)
        wait_until(partial(installed.is_another, before), "another process", BOOT, interval=1)
        installed.wait_up()
    row("service", case="kill -9, restart", figure="up again")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("User=nobody-of-that-name", "217"),
        ("ExecStart=\nExecStart=/usr/bin/vpnd-that-is-gone run", "203"),
        ("LoadCredential=key:/etc/vpnd/psk/none", "243"),
    ],
    ids=["user", "program", "credential"],
)
def test_what_a_restart_does_not_mend_is_not_restarted(installed: Installed, lines: str, code: str) -> None:
    guest = installed.guest
    guest.write("/run/systemd/system/vpnd.service.d/broken.conf", f"[Service]\n{lines}\n")
    guest.run("systemctl daemon-reload")
    assert guest.run("systemctl restart vpnd", check=False, timeout=INSTALL).returncode != 0
    shown = guest.run("systemctl show -p ActiveState,NRestarts,ExecMainStatus vpnd").stdout.split()
    guest.run("rm /run/systemd/system/vpnd.service.d/broken.conf; systemctl daemon-reload")
    guest.run("systemctl start vpnd", timeout=INSTALL)
    assert set(shown) == {"ActiveState=failed", "NRestarts=0", f"ExecMainStatus={code}"}


def test_pages_and_completion_are_there(installed: Installed) -> None:
    for page in ("vpnd", "vpnctl", "vpnd.toml"):
        assert "NAME" in installed.guest.run(f"man -P cat {page} 2>&1").stdout
    # The first answers of an emulated daemon take longer than completion waits for one.
    wait_until(lambda: completed(installed) == ["branch"], "the name to be completed", BOOT)


def completed(installed: Installed) -> list[str]:
    """What bash completes of `vpnctl up br`."""
    return installed.guest.run(
        ". /usr/share/bash-completion/bash_completion; _completion_loader vpnctl; COMP_WORDS=(vpnctl up br);"
        " COMP_CWORD=2; _vpnctl_completion vpnctl; echo ${COMPREPLY[*]}",
        check=False,
    ).stdout.split()


def test_the_console_is_served(installed: Installed, row: TellRow) -> None:
    """By a user of its own, who reaches the daemon's socket."""
    guest = installed.guest
    guest.run("systemctl enable --now vpnd-console; vpnd console --token >/run/token", timeout=INSTALL)
    process = "ps -o user:20=,supgrp= -p $(systemctl show -p MainPID --value vpnd-console)"
    assert guest.run(process).stdout.split() == ["vpnd-console", "vpnd-console,vpnd"]
    guest.write("/run/browser.py", BROWSER)
    wait_until(
        lambda: guest.run("python3 /run/browser.py", check=False).stdout == "branch\n", "the page", BOOT
    )
    row("service", case="vpnd-console", figure="user vpnd-console; signed in, the tunnel is on the page")


BROWSER = """
import http.cookiejar, urllib.parse, urllib.request
place, cookies = "http://127.0.0.1:8642", http.cookiejar.CookieJar()
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
browser.open(f"{place}/sign-in", timeout=300)
form = urllib.parse.urlencode({"token": open("/run/token").read().strip()}).encode()
request = urllib.request.Request(f"{place}/sign-in", form, {"Origin": place})
page = browser.open(request, timeout=300).read().decode()
print("branch" if "branch" in page else page)
"""


def test_the_units_are_hardened(installed: Installed, row: TellRow) -> None:
    for unit in ("vpnd", "vpnd-guard", "vpnd-console"):
        line = installed.guest.run(f"systemd-analyze security {unit} | tail -1").stdout
        score = float(line.split(":")[1].split()[0])
        row("service", case=f"systemd-analyze security {unit}", figure=f"{score}")
        assert score <= 2.0


def test_ansible_changes_nothing_the_second_time(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory, row: TellRow
) -> None:
    place = tmp_path_factory.mktemp("ansible")
    programs = Path("build/ansible").absolute()
    if not (programs / "bin/ansible-lint").exists():
        subprocess.run([sys.executable, "-m", "venv", str(programs)], check=True)
        subprocess.run(
            [programs / "bin/pip", "install", "-q", "ansible-core<2.20", "ansible-lint"], check=True
        )
    role = Path("contrib/ansible").absolute()
    path = f"{programs / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HOME": str(place), "LANG": "C.UTF-8"}
    subprocess.run(["ansible-lint", "-q"], cwd=role, env=environment, check=True)
    installed.guest.run("install -D -m 600 /mnt/key.pub /root/.ssh/authorized_keys")
    (place / "play.yml").write_text(PLAY.replace("PACKAGE", str(installed.package.absolute())))
    (place / "keys.yml").write_text(json.dumps({"vpnd_keys": {"branch": PSK}}))

    def play(*arguments: str) -> str:
        settings = {"ROLES_PATH": role / "roles", "HOST_KEY_CHECKING": False, "TIMEOUT": 300}
        command = ["env", f"PATH={path}", f"HOME={place}", "LANG=C.UTF-8"]
        command += [f"ANSIBLE_{name}={value}" for name, value in settings.items()]
        command += [
            "ansible-playbook",
            "-i",
            f"{B.address},",
            "-u",
            "root",
            "--private-key",
            str(installed.key),
        ]
        command += ["-e", f"@{place / 'keys.yml'}", str(place / "play.yml"), *arguments]
        done = installed.peer.namespace.run(*command, check=False, timeout=2 * INSTALL)
        assert PSK not in done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "+pre_shared_key = " in play("--check", "--diff")
    assert "changed=0 " not in play("--diff")
    assert "changed=0 " in play()
    assert "changed=0 " in play("--check", "--diff", "-vv")
    installed.wait_up()
    row("service", case="Ansible, twice", figure="the second time 0 changes; no key in any output")


def test_an_upgrade_lets_no_packet_out_in_clear(installed: Installed, row: TellRow) -> None:
    guest = installed.guest
    installed.install("earlier.deb")
    installed.wait_up()
    before = guest.run("dpkg-query -W vpnd").stdout
    with Capture(installed.peer.namespace, "eth0", CLEAR) as path:
        guest.run(TRAFFIC)
        installed.install(installed.package.name)
        installed.wait_up()
        guest.run("systemctl stop traffic")
    assert guest.run("dpkg-query -W vpnd").stdout != before
    assert packets(path) == 0
    row("service", case="upgrade while protected traffic is sent", figure="0 packets in clear")


def packets(path: Path) -> int:
    """How many a capture has."""
    done = subprocess.run(["tcpdump", "-n", "-r", str(path)], capture_output=True, text=True, check=True)
    return len(done.stdout.splitlines())


@pytest.mark.usefixtures("apparmor")
def test_apparmor_has_refused_nothing_else(installed: Installed) -> None:
    assert denials(installed) == ["/etc/shadow", "/etc/shadow"]


def test_after_a_reboot_the_guard_is_there_before_the_network(installed: Installed, row: TellRow) -> None:
    guest = installed.guest
    guest.write("/etc/systemd/network/10-eth0.network", NETWORK)
    guest.write("/etc/systemd/network/20-lo.network", INNER)
    guest.write("/etc/systemd/system/early.service", EARLY)
    guest.run("chmod 644 /etc/systemd/network/*; systemctl -q enable systemd-networkd early")
    if guest.emulated:
        # What was in /run for a slow machine is gone after a reboot.
        guest.run("install -D /mnt/watchdog /etc/systemd/system/vpnd.service.d/watchdog.conf")
    with Capture(installed.peer.namespace, "eth0", CLEAR) as path:
        guest.reboot()
        if guest.emulated:
            guest.run("mountpoint -q /mnt || mount -o ro /dev/vdb /mnt")
        installed.wait_up()
    assert packets(path) == 0
    # The wire would have had it: without guard and daemon these packets do leave.
    with Capture(installed.peer.namespace, "eth0", CLEAR) as path:
        guest.run("systemctl stop vpnd vpnd-guard", timeout=INSTALL)
        guest.run(f"ping -n -q -c 5 -W 1 {A.inside}", check=False)
    assert packets(path) > 0
    began = guest.run("journalctl -b --no-pager -u vpnd-guard | grep -c Starting").stdout.strip()
    assert began == "1"
    moments = [
        int(guest.run(f"systemctl show -p {what} --value {unit}").stdout)
        for unit, what in (
            ("vpnd-guard", "ExecMainExitTimestampMonotonic"),
            ("systemd-networkd", "ExecMainStartTimestampMonotonic"),
        )
    ]
    assert moments == sorted(moments)
    guest.run("systemctl disable -q early; systemctl stop early; rm /etc/systemd/system/early.service")
    guest.run("rm -rf /etc/systemd/network/* /etc/systemd/system/vpnd.service.d; systemctl daemon-reload")
    guest.run("systemctl start vpnd", timeout=INSTALL)
    row("service", case="reboot", figure="guard once, before the network; 0 packets in clear")


@pytest.mark.usefixtures("apparmor")
def test_apparmor_has_refused_nothing_that_is_needed(installed: Installed) -> None:
    assert denials(installed) == []


def test_purge_leaves_the_keys_and_nothing_else(installed: Installed, row: TellRow) -> None:
    guest = installed.guest
    guest.run("apt-get -y purge vpnd </dev/null", timeout=INSTALL)
    assert "inet vpnd" not in guest.run("nft list tables").stdout
    assert guest.run("ip rule; ip route show table all; ip -br link").stdout.count("vpn-") == 0
    assert guest.run("aa-status 2>/dev/null | grep vpnd", check=False).stdout == ""
    # What Ansible, ssh and man keep, and the users of the test.
    guest.run("rm -rf /var/cache/vpnd /root/.ssh /root/.ansible /var/cache/man")
    guest.run(FOUND.format(at="after"))
    left = guest.run("comm -13 /var/before /var/after").stdout
    ours = [line for line in left.splitlines() if "vpn" in line]
    assert ours == ["/etc/vpnd", "/etc/vpnd/psk", "/etc/vpnd/psk/branch"], left
    row("service", case="purge", figure="asks nothing; the keys stay, nothing else")
