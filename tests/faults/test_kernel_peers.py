"""Peers as they run in the field, with ESP in the kernel: strongSwan and libreswan in a guest under qemu."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.lab.guest import Guest
from tests.lab.lab import Lab, Namespace
from tests.lab.plan import PSK, A, B, Plan, SpdRule
from tests.lab.process import wait_until
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

SECOND = "10.3.0.1"
"""An address of the guest in a network that only some tunnels have."""
PLAN = Plan(encapsulation="auto")
TWO = PLAN.change(rules=(SpdRule(("10.1.0.0/24",), ("10.2.0.0/24", "10.3.0.0/24")),))
UP = 600.0
"""Seconds for a tunnel to come up with an emulated machine."""

SWANCTL = """
connections {{
  t1 {{
    version = {version}
    local_addrs = 192.0.2.2
    remote_addrs = 192.0.2.1
    proposals = aes128-sha256-modp2048
    fragmentation = {fragmentation}
    dpd_delay = 10s
    local {{
      auth = psk
      id = 192.0.2.2
    }}
    remote {{
      auth = psk
      id = 192.0.2.1
    }}
    children {{
      t1 {{
        local_ts = {local_ts}
        remote_ts = 10.1.0.0/24
        esp_proposals = {esp}
        sha256_96 = {cut}
        start_action = {start}
        close_action = {close}
      }}
    }}
  }}
}}
secrets {{
  ike-t1 {{
    secret = "{psk}"
  }}
}}
"""

IPSEC = """
conn t1
\tleft=192.0.2.2
\tright=192.0.2.1
\tauthby=secret
\tike=aes128-sha2_256;modp2048
\tesp=aes128-sha2_256
\tpfs=no
\tauto=add
\tikev2={ikev2}
\taggressive={aggressive}
\tleftid={left_id}
\trightid={right_id}
{subnets}
"""
ONE_SUBNET = "\tleftsubnet=10.2.0.0/24\n\trightsubnet=10.1.0.0/24"
TWO_SUBNETS = "\tleftsubnets={10.2.0.0/24,10.3.0.0/24}\n\trightsubnet=10.1.0.0/24"


def swanctl(
    version: str = "2",
    local_ts: str = "10.2.0.0/24",
    esp: str = "aes128-sha256",
    fragmentation: str = "yes",
    start: str = "none",
    close: str = "none",
    cut: str = "no",
) -> str:
    """strongSwan's side of the tunnel; `cut`: whether its kernel cuts HMAC-SHA-256 to 96 bits."""
    return SWANCTL.format(
        version=version,
        local_ts=local_ts,
        esp=esp,
        fragmentation=fragmentation,
        start=start,
        close=close,
        cut=cut,
        psk=PSK,
    )


def ipsec_conf(
    ikev2: str = "no",
    aggressive: str = "no",
    left_id: str = B.address,
    right_id: str = A.address,
    subnets: str = ONE_SUBNET,
) -> str:
    """libreswan's side of the tunnel."""
    return IPSEC.format(
        ikev2=ikev2, aggressive=aggressive, left_id=left_id, right_id=right_id, subnets=subnets
    )


@dataclass
class Field:
    """vpnd in a namespace, and the guest at the other end of its wire."""

    namespace: Namespace
    ours: Vpnd
    guest: Guest

    def both_ways(self, target: str = B.inside) -> None:
        """Echoes pass in both directions, none lost.

        Where the peer began, we are up before it has heard our answer: the first echo shows that it has.
        """
        wait_until(
            lambda: ping(self.namespace, A.inside, target, count=1, patience=20).received == 1,
            "the first echo",
            UP,
        )
        there = ping(self.namespace, A.inside, target, count=5, patience=60)
        assert there.received == 5, f"{there.text}\n{self.ours.log()[-4000:]}\n{self.guest.log()}"
        assert self.guest.ping(target, A.inside) == 5, f"{self.ours.log()[-4000:]}\n{self.guest.log()}"

    def up(self) -> None:
        """Our end has the tunnel up."""
        try:
            self.ours.wait_state("t1", "up", timeout=UP)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.ours.log()[-4000:]}\n{self.guest.log()}") from None


@pytest.fixture(scope="module")
def machine() -> Iterator[Field]:
    """The guest boots once for all tests of this file."""
    with Lab() as lab:
        namespace = lab.namespace("a")
        inside = (f"{B.inside}/32", f"{SECOND}/32")
        with Guest(namespace, f"{B.address}/24", inside) as guest:
            namespace.add_address(f"{A.address}/24", "eth0")
            namespace.add_address(f"{A.inside}/32")
            yield Field(namespace, Vpnd(namespace, A.address), guest)


@pytest.fixture
def field(machine: Field) -> Iterator[Field]:
    """Neither end has a tunnel, and no peer runs in the guest."""
    machine.guest.stop_peer()
    yield machine
    for tunnel in machine.ours.get("/v1/status")["tunnels"]:
        machine.ours.remove(tunnel["name"])
    machine.guest.stop_peer()


LONG_ID = "gateway.branch.ex"
"""17 characters: libreswan pads its clear messages to a multiple of four."""


@pytest.mark.parametrize("role", ["we begin", "the peer begins"])
def test_libreswan_in_aggressive_mode_pads_its_messages(role: str, field: Field, row: TellRow) -> None:
    assert len(LONG_ID) == 17
    plan = PLAN.change(version="ikev1", mode="aggressive", remote=replace(B, identity=LONG_ID))
    field.guest.start_libreswan(
        ipsec_conf(aggressive="yes", left_id=f"@{LONG_ID}"), f'@{LONG_ID} {A.address} : PSK "{PSK}"\n'
    )
    if role == "we begin":
        field.ours.add(plan.change(negotiation="active"))
    else:
        field.ours.add(plan)
        field.guest.run("ipsec auto --up t1", check=False)
    field.up()
    field.both_ways()
    row("kernel peers", peer="libreswan", case="aggressive mode, padded messages", role=role)


@pytest.mark.parametrize("role", ["we begin", "the peer begins"])
def test_strongswan_with_two_networks_in_one_child(role: str, field: Field, row: TellRow) -> None:
    local_ts = "10.2.0.0/24,10.3.0.0/24"
    if role == "we begin":
        field.guest.start_strongswan(swanctl(local_ts=local_ts))
        field.ours.add(TWO.change(negotiation="active"))
    else:
        field.ours.add(TWO)
        field.guest.start_strongswan(swanctl(local_ts=local_ts, start="start"))
    field.up()
    wait_until(
        lambda: [one["state"] for one in field.ours.tunnel("t1")["mappings"]] == ["up", "up"],
        "both mappings to be up",
        UP,
    )
    field.both_ways()
    field.both_ways(SECOND)
    row("kernel peers", peer="strongSwan", case="two networks in one CHILD_SA", role=role)


def test_libreswan_with_two_networks(field: Field, row: TellRow) -> None:
    field.ours.add(TWO)
    field.guest.start_libreswan(
        ipsec_conf(ikev2="insist", subnets=TWO_SUBNETS), f'{B.address} {A.address} : PSK "{PSK}"\n'
    )
    field.guest.run("ipsec auto --up t1", check=False)
    field.up()
    wait_until(
        lambda: [one["state"] for one in field.ours.tunnel("t1")["mappings"]] == ["up", "up"],
        "both mappings to be up",
        UP,
    )
    field.both_ways()
    field.both_ways(SECOND)
    row("kernel peers", peer="libreswan", case="two networks", role="the peer begins")


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_strongswan_that_reopens_what_is_closed(version: str, field: Field, row: TellRow) -> None:
    field.guest.start_strongswan(swanctl(version=version[-1], start="start", close="start"))
    field.ours.add(PLAN.change(version=version, negotiation="active"))
    field.up()
    time.sleep(60)
    before = field.guest.strongswan_sas()
    field.both_ways()
    time.sleep(15)
    after = field.guest.strongswan_sas()
    seen = sorted(sa["uniqueid"] for sa in after)
    row(
        "kernel peers", peer="strongSwan", case=f"close_action = start, {version}", role="both begin",
        figure=f"IKE SA {seen}, after a minute steady",
    )  # fmt: skip
    assert seen == sorted(sa["uniqueid"] for sa in before)
    assert len(after) <= 3
    assert sum(len(sa["child-sas"]) for sa in after) <= 3
    assert max(int(one) for one in seen) <= 3, "strongSwan numbers its IKE SAs from 1"
    field.both_ways()


def test_strongswan_fragments_its_first_ikev1_message(field: Field, row: TellRow) -> None:
    many = ",".join(
        f"{cipher}-{integrity}-{group}"
        for cipher in ("aes256", "aes192", "aes128")
        for integrity in ("sha512", "sha384", "sha256")
        for group in ("modp4096", "modp3072", "modp2048", "modp1536")
    )
    conf = swanctl(version="1", fragmentation="force", start="start").replace("aes128-sha256-modp2048", many)
    field.ours.add(PLAN.change(version="ikev1"))
    field.guest.start_strongswan(conf)
    field.up()
    field.both_ways()
    row("kernel peers", peer="strongSwan", case="fragmentation = force, IKEv1", role="the peer begins")


@pytest.mark.parametrize("role", ["we begin", "the peer begins"])
def test_strongswan_offers_esn_in_quick_mode(role: str, field: Field, row: TellRow) -> None:
    esp = "aes128-sha256-esn,aes128-sha256-noesn"
    if role == "we begin":
        field.guest.start_strongswan(swanctl(version="1", esp=esp))
        field.ours.add(PLAN.change(version="ikev1", negotiation="active"))
    else:
        field.ours.add(PLAN.change(version="ikev1"))
        field.guest.start_strongswan(swanctl(version="1", esp=esp, start="start"))
    field.up()
    field.both_ways()
    row("kernel peers", peer="strongSwan", case="ESN offered in quick mode", role=role)


def configured(field: Field, plan: Plan, setting: str) -> None:
    """Add the tunnel with one more key of its `ipsec` table."""
    path = field.ours.write_tunnel(plan, field.ours.directory / "more.toml")
    text = path.read_text()
    heading = f"[tunnels.{plan.name}.ipsec]\n"
    assert heading in text
    path.write_text(text.replace(heading, f"{heading}{setting}\n"))
    field.ours.ctl("add", str(path))


@pytest.mark.parametrize(
    ("setting", "esp", "cut"),
    [
        pytest.param('esn = "yes"', "aes128-sha256-esn", "no", id="extended sequence numbers"),
        pytest.param('esn = "no"', "aes128-sha256-noesn", "no", id="none"),
        pytest.param("sha256_96 = true", "aes128-sha256", "yes", id="HMAC-SHA-256 cut to 96 bits"),
    ],
)
@pytest.mark.parametrize("role", ["we begin", "the peer begins"])
def test_what_only_a_kernel_can_do(
    setting: str, esp: str, cut: str, role: str, field: Field, row: TellRow
) -> None:
    if role == "we begin":
        field.guest.start_strongswan(swanctl(esp=esp, cut=cut))
        configured(field, PLAN.change(negotiation="active"), setting)
    else:
        configured(field, PLAN, setting)
        field.guest.start_strongswan(swanctl(esp=esp, cut=cut, start="start"))
    field.up()
    field.both_ways()
    row("kernel peers", peer="strongSwan", case=setting, role=role)
