"""The wheels of vpnd and of its native engine in an empty environment, in the userlands of two releases."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.topology import two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

RELEASES = {"bookworm": "12", "trixie": "13"}
INCLUDED = "python3,python3-venv,iproute2,nftables,ca-certificates"
WHEELS = Path("build/wheels")
PROGRAMS = "/opt/vpnd/bin"
SHARED = ("/proc", "/dev", "/sys", "/tmp", "/etc/resolv.conf", "/etc/ssl/certs", "/opt/wheels")
"""What a process in a userland shares with this machine: the laboratory's directory is below /tmp; and what
pip is configured with here."""
PIP = ("PIP_", "SSL_CERT", "REQUESTS_CA", "http", "HTTP", "no_proxy", "NO_PROXY")


class Userland:
    """The files of one release, in which commands run with this machine's kernel."""

    def __init__(self, release: str) -> None:
        self.root = (Path("build") / f"userland-{release}").resolve()
        if not (self.root / "ready").exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", release, str(self.root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (self.root / "ready").touch()

    def command(self, *words: str) -> tuple[str, ...]:
        """What starts a program in here."""
        mounts = []
        for path in (*map(Path, SHARED), WHEELS.resolve()):
            if path.exists():
                place = self.root / str(path).lstrip("/")
                make = f"mkdir -p {place}" if path.is_dir() else f"mkdir -p {place.parent}; touch {place}"
                mounts.append(f"{make}; mount --rbind {path} {place}")
        shell = "; ".join(("set -e", *mounts, 'exec chroot "$0" "$@"'))
        return "unshare", "--mount", "sh", "-c", shell, str(self.root), *words

    def run(self, *words: str, check: bool = True) -> str:
        """Run it to its end; what it said."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(PIP)}
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **kept}
        done = subprocess.run(
            self.command(*words), env=environment, check=False, text=True, timeout=900,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def install(self, wheel: Path) -> None:
        """What a user does with a wheel; what it needs comes from where pip finds it."""
        self.run(f"{PROGRAMS}/python", "-m", "pip", "install", "-q", str(wheel))


@pytest.fixture(scope="module")
def wheels() -> tuple[Path, Path]:
    """The wheel of vpnd and that of its engine."""
    subprocess.run(
        ["bash", "contrib/wheel.sh", str(WHEELS)], check=True, env=os.environ | {"ENGINE_REQUIRED": "1"}
    )
    (first,), (second,) = WHEELS.glob("vpnd-*.whl"), WHEELS.glob("vpnd_engine-*.whl")
    return first.resolve(), second.resolve()


@pytest.fixture(params=RELEASES)
def userland(request: pytest.FixtureRequest) -> Iterator[Userland]:
    """One of a release, with an empty environment."""
    if shutil.which("debootstrap") is None:
        pytest.skip("no debootstrap on this machine (apt-get install debootstrap)")
    made = Userland(request.param)
    assert made.run("cat", "/etc/debian_version").startswith(RELEASES[request.param])
    shutil.rmtree(made.root / "opt/vpnd", ignore_errors=True)
    made.run("python3", "-m", "venv", "/opt/vpnd")
    yield made
    shutil.rmtree(made.root / "opt/vpnd", ignore_errors=True)


def carried_by(userland: Userland) -> set[str]:
    """Two gateways in there with a tunnel between them that carries pings; which engines they run."""
    with Lab() as lab:
        wire = two_gateways(lab)
        command = userland.command(f"{PROGRAMS}/vpnd", "run")
        plan = Plan()
        ends = [
            Vpnd(site.gateway, end.address, command, plans=[view], start_timeout=60, engine="auto")
            for site, end, view in (
                (wire.b, B, plan.other().change(negotiation="passive")),
                (wire.a, A, plan),
            )
        ]
        ends[1].up(plan.name, timeout=30)
        require_ping(wire.a.host, A.inside, B.inside, count=3)
        return {end.status()["gateway"]["engine"] for end in ends}


def test_a_tunnel_runs_native_with_both_wheels_and_on_python_with_the_first(
    userland: Userland, wheels: tuple[Path, Path], row: TellRow
) -> None:
    first, second = wheels
    userland.install(first)
    assert carried_by(userland) == {"python"}
    configuration = userland.root / "root/vpnd.toml"
    configuration.write_text(f'[gateway]\nname = "a"\naddress = "{A.address}"\nengine = "native"\n')
    configuration.chmod(0o600)
    refused = userland.run(f"{PROGRAMS}/vpnd", "check", "/root/vpnd.toml", check=False)
    assert "E-ENGINE" in refused
    assert "the native engine is not installed" in refused
    assert "pip install 'vpnd[native]'" in refused
    userland.install(second)
    assert "0 errors" in userland.run(f"{PROGRAMS}/vpnd", "check", "/root/vpnd.toml")
    assert carried_by(userland) == {"native"}
    python = userland.run("python3", "-V").strip()
    row("wheels", userland=userland.root.name, python=python, engine=second.name)
