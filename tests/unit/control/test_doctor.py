"""`vpnctl doctor`: each check with each of its verdicts, on a machine that the test makes up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.control.conftest import Remote, vpnctl
from tests.unit.control.fakes import FakeOperations
from vpnd.control import failures
from vpnd.control.doctor import checks, firewall
from vpnd.control.doctor import run as doctors
from vpnd.control.doctor.verdicts import Finding, Machine, Subject, ThisMachine, Verdict
from vpnd.host.routes import LINK_GROUP, MARK

GOOD, NOTE, BAD, UNKNOWN = Verdict.GOOD, Verdict.NOTE, Verdict.BAD, Verdict.UNKNOWN
ALL = {check.__name__: check for check in checks.CHECKS}

Change = Callable[[dict[str, Any]], object]


class Made:
    """A machine of a few answers."""

    def __init__(self, answers: dict[str, object] | None = None, files: dict[str, str] | None = None) -> None:
        self.answers = {
            "ip -json route get 198.51.100.1": [{"dev": "eth0", "prefsrc": "192.0.2.1"}],
            "ip -json route get 10.2.0.1": [{"dev": "vpn-branch-a"}],
            "ip -json link show dev vpn-branch-a": [{"flags": ["UP"], "mtu": 1400}],
            "ip -json address": [],
            "nft --json list ruleset": {"nftables": []},
        } | (answers or {})
        self.files = {
            "/proc/sys/net/ipv4/ip_forward": "1",
            "/proc/sys/net/ipv4/conf/all/rp_filter": "2",
            "/proc/sys/net/ipv4/conf/vpn-branch-a/rp_filter": "0",
        } | (files or {})
        self.names: dict[str, list[str]] = {}
        self.asked: dict[int, str | None] = {500: None, 4500: None}
        self.clock: bool | None = True
        self.time = 1_800_000_000.0

    def but(self, **values: Any) -> Made:
        """The same with something else."""
        for name, value in values.items():
            setattr(self, name, value)
        return self

    def ask(self, address: str, port: int) -> str | None:
        assert address == "198.51.100.1"
        return self.asked[port]

    def synchronized(self) -> bool | None:
        return self.clock

    def now(self) -> float:
        return self.time

    def run(self, *command: str) -> str | None:
        found = self.answers.get(" ".join(command))
        if found is None and command[0] == "ping":
            size = command[command.index("-s") + 1]
            found = self.answers.get(f"ping {size}") or self.answers.get("ping")
            if isinstance(found, int):
                found = None if int(size) > found else "x"
        return None if found is None else json.dumps(found)

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def resolve(self, name: str) -> list[str]:
        if name not in self.names:
            raise OSError(-2, "Name or service not known")
        return self.names[name]


def subject(*changes: Change, name: str = "branch-a") -> Subject:
    operations = FakeOperations()
    tunnel = json.loads(operations.tunnel(name).model_dump_json(by_alias=True))
    keys = json.loads(operations.keys_of(name).model_dump_json())
    trace = json.loads(operations.trace(name).model_dump_json())["lines"]
    others = json.loads(operations.status().model_dump_json())["tunnels"]
    for change in changes:
        change(tunnel)
    return Subject(tunnel, keys, trace, others)


def setting(path: str, value: object) -> Change:
    """`a.b.0.c` of the tunnel is this value."""

    def change(tunnel: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = tunnel
        for part in way:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value

    return change


def found(check: str, one: Subject, machine: Machine | None = None) -> list[Finding]:
    return list(ALL[check](one, machine or Made()))


DOWN = setting("ike", None)
ADDRESS = "configuration.customer_gateway.address"
TOLD = {"code": "E-PSK", "message": "the keys differ", "at": "2026-03-01T14:02:11Z"}
PFS = {"code": "E-PFS", "message": "PFS differs", "at": "2026-03-01T14:02:11Z"}
STRICT_ALL = "/proc/sys/net/ipv4/conf/all/rp_filter"
STRICT = {STRICT_ALL: "1"}
NO_FORWARD = {"/proc/sys/net/ipv4/ip_forward": "0"}
ATTEMPT = {"since_s": 8, "sent": 4, "received": 0, "peer": "198.51.100.1", "port": 500}


def at(address: str, prefix: int) -> dict[str, Any]:
    """An interface here."""
    return {
        "ifname": "eth1",
        "addr_info": [{"local": address, "prefixlen": prefix, "scope": "global"}],
    }


CASES: list[tuple[str, tuple[Change, ...], Made, Verdict, str]] = [
    ("names", (), Made(), GOOD, "is an address"),
    ("names", (setting(ADDRESS, "any"),), Made(), GOOD, "any address"),
    (
        "names",
        (setting(ADDRESS, "gw.example"),),
        Made(),
        BAD,
        "cannot be resolved: Name or service not known",
    ),
    ("route", (), Made(), GOOD, "198.51.100.1 by eth0 from 192.0.2.1"),
    ("route", (), Made({"ip -json route get 198.51.100.1": []}), BAD, "no route"),
    (
        "route",
        (),
        Made({"ip -json route get 198.51.100.1": [{"dev": "vpn-branch-a"}]}),
        NOTE,
        "itself in the ranges",
    ),
    *(
        (
            "route",
            (),
            Made(
                {
                    "ip -json route get 198.51.100.1": [{"dev": device}],
                    "ip -json route get 198.51.100.1 mark 0x7670": [{"dev": device}],
                    "ip -json link show dev vpn-branch-b": [{"flags": ["UP"], "group": checks.TUNNELS}],
                }
            ),
            BAD,
            f"leads into {device}, the interface of a tunnel",
        )
        for device in ("vpn-branch-a", "vpn-branch-b")
    ),
    (
        "route",
        (),
        Made({"ip -json route get 198.51.100.1": [{"dev": "eth1", "prefsrc": "192.0.2.9"}]}),
        NOTE,
        "from 192.0.2.9, and the tunnel uses 192.0.2.1",
    ),
    ("route", (setting("peer.address", None),), Made(), UNKNOWN, "not known yet"),
    ("udp", (), Made(), GOOD, "198.51.100.1 answers what is sent to it"),
    ("udp", (), Made().but(asked={500: "ECONNREFUSED", 4500: None}), BAD, "says that nothing listens there"),
    ("udp", (), Made().but(asked={500: "EHOSTUNREACH", 4500: None}), BAD, "is refused on its way"),
    (
        "udp",
        (),
        Made().but(asked={500: "silent", 4500: None}),
        BAD,
        "no answer, and on UDP 4500 there is one",
    ),
    ("udp", (), Made().but(asked={500: "silent", 4500: "silent"}), UNKNOWN, "no answer to a message"),
    ("udp", (setting("peer.address", None),), Made(), UNKNOWN, "not known yet"),
    ("nat", (), Made(), NOTE, "this machine is behind one: ESP goes over UDP 4500"),
    ("nat", (setting("peer.nat_at", "there"),), Made(), NOTE, "the peer is behind one, or forces UDP"),
    ("nat", (setting("peer.nat_at", "both"),), Made(), NOTE, "both are behind one"),
    ("nat", (setting("peer.nat_at", None),), Made(), GOOD, "none"),
    ("nat", (DOWN,), Made(), UNKNOWN, "once IKE is up"),
    ("nat", (DOWN, setting("attempt", ATTEMPT | {"port": 4500})), Made(), BAD, "nothing comes back"),
    ("nat", (DOWN, setting("attempt", ATTEMPT)), Made(), UNKNOWN, "once IKE is up"),
    ("clock", (), Made(), GOOD, "it is synchronized"),
    ("clock", (), Made().but(clock=None), UNKNOWN, "does not say"),
    ("clock", (), Made().but(clock=False), NOTE, "it is not synchronized"),
    (
        "clock",
        (setting("configuration.retire_after", "2026-04-01T00:00:00Z"),),
        Made().but(clock=False),
        BAD,
        "a key ends by it",
    ),
    ("clock", (), Made().but(time=86400.0), BAD, "it says 1970-01-02"),
    ("key", (), Made(), GOOD, "fingerprint 3f9a-77c1"),
    ("key", (DOWN, setting("last_error", None)), Made(), NOTE, "is it the peer's as well"),
    ("key", (DOWN, setting("last_error", TOLD)), Made(), BAD, "the peer has refused it, or our identity"),
    ("failure", (DOWN, setting("last_error", TOLD)), Made(), BAD, "E-PSK  the keys differ"),
    ("failure", (setting("impaired", TOLD | {"code": "E-ONEWAY"}),), Made(), BAD, "E-ONEWAY"),
    ("failure", (setting("mappings.0.reason", TOLD),), Made(), BAD, "10.1.0.0/24 - 10.2.0.0/24: E-PSK"),
    ("overlap", (setting("routes", ["10.9.0.0/16"]),), Made(), GOOD, "no range"),
    ("overlap", (), Made(), GOOD, "no range"),
    (
        "overlap",
        (),
        Made(
            {
                "ip -json address": [
                    {
                        "ifname": "eth1",
                        "addr_info": [{"local": "10.2.3.1", "prefixlen": 24, "scope": "global"}],
                    }
                ]
            }
        ),
        NOTE,
        "10.2.0.0/16 overlaps with 10.2.3.0/24 of eth1",
    ),
    *(
        ("overlap", (), Made({"ip -json address": [at("10.2.3.1", prefix)]}), BAD, "both sides have it")
        for prefix in (16, 8)
    ),
    ("pfs", (), Made(), NOTE, "no rekey yet"),
    ("pfs", (setting("mappings.0.reason", PFS),), Made(), BAD, "PFS differs"),
    ("pfs", (DOWN, setting("last_error", PFS)), Made(), BAD, "PFS differs"),
    ("pfs", (setting("ike.version", "ikev1"), setting("mappings.0.pfs", 14)), Made(), GOOD, "agreed on: 14"),
    ("pfs", (DOWN,), Made(), UNKNOWN, "first rekey"),
    ("icv", (), Made(), GOOD, "verified"),
    (
        "icv",
        (setting("drops.integrity", 9), setting("mappings.0.packets_in", 0)),
        Made(),
        BAD,
        "9 ESP packets came and none verifies",
    ),
    ("icv", (setting("drops.integrity", 9),), Made(), NOTE, "others did"),
    ("path_mtu", (), Made({"ping 1372": "x"}), GOOD, "packets of 1400 bytes come back"),
    ("path_mtu", (), Made({"ping": 1301}), BAD, "packets of 1325 bytes come back, and of 1400 do not"),
    ("path_mtu", (), Made({"ping": 1252}), BAD, "packets of 1280 bytes come back, and of 1400 do not"),
    ("path_mtu", (), Made({"ping": 700}), BAD, "packets of 724 bytes come back, and of 1400 do not"),
    ("path_mtu", (), Made({"ping": 500}), BAD, "answers no ping"),
    ("path_mtu", (), Made(), BAD, "answers no ping"),
    (
        "path_mtu",
        (setting("health", None),),
        Made(),
        UNKNOWN,
        "answers no ping, and there is no health check",
    ),
    ("path_mtu", (setting("health", None), DOWN), Made(), UNKNOWN, "once the tunnel is up"),
    ("path_mtu", (setting("health", None),), Made({"ping": "x"}), GOOD, "datagrams of 1476 bytes come back"),
    (
        "path_mtu",
        (setting("health", None),),
        Made({"ping": 1300}),
        BAD,
        "of 1476 do not, which packets of 1400",
    ),
    ("return_path", (), Made(), GOOD, "2 packets sent, 2 received"),
    (
        "return_path",
        (setting("mappings.0.packets_in", 0), setting("mappings.0.packets_out", 9)),
        Made(),
        BAD,
        "9 packets sent, 0 received",
    ),
    ("forwarding", (), Made(), GOOD, "IPv4 is forwarded"),
    ("forwarding", (), Made(files=NO_FORWARD), BAD, "forwards no IPv4"),
    ("forwarding", (setting("mappings.0.local", "0.0.0.0/0"),), Made(files=NO_FORWARD), NOTE, "forwards no"),
    ("forwarding", (setting("impaired", TOLD | {"code": "E-NOFORWARD"}),), Made(), BAD, "the keys differ"),
    ("reverse_path", (), Made(), GOOD, "drops nothing"),
    (
        "reverse_path",
        (),
        Made(files={"/proc/sys/net/ipv4/conf/vpn-branch-a/rp_filter": "1"} | {STRICT.popitem()[0]: "0"}),
        NOTE,
        "rp_filter is strict on vpn-branch-a",
    ),
    (
        "reverse_path",
        (),
        Made({"ip -json route get 10.2.0.1": [{"dev": "eth1"}]}, {STRICT_ALL: "1"}),
        BAD,
        "go elsewhere are dropped, and 10.2.0.0/16 by eth1 does",
    ),
    ("interface", (), Made({"ip -json link show dev vpn-branch-a": []}), BAD, "is not there"),
    ("interface", (), Made({"ip -json link show dev vpn-branch-a": [{"flags": []}]}), BAD, "is down"),
    ("interface", (), Made(), GOOD, "vpn-branch-a is up, MTU 1400"),
]


@pytest.mark.parametrize(("check", "changes", "machine", "verdict", "text"), CASES)
def test_a_check_and_its_verdict(
    check: str, changes: tuple[Change, ...], machine: Made, verdict: Verdict, text: str
) -> None:
    first = found(check, subject(*changes), machine)[0]
    assert (first.verdict, text in first.text) == (verdict, True), first
    assert first.next or verdict is not BAD


def test_every_check_was_seen_to_say_good_and_bad() -> None:
    """That of the firewall has a test of its own; what stands against a tunnel is never good."""
    for verdict in (GOOD, BAD):
        seen = {check for check, _, _, said, _ in CASES if said is verdict}
        assert seen | {"failure"} == set(ALL), verdict


@pytest.mark.parametrize(
    ("changes", "verdict", "text"),
    [
        ((), GOOD, "IKE is up, with UDP 4500"),
        ((DOWN, setting("attempt", ATTEMPT)), BAD, "4 sent, none received in 8 s on UDP 500"),
        ((DOWN, setting("attempt", ATTEMPT | {"received": 1})), GOOD, "4 sent, 1 received"),
        ((DOWN,), NOTE, "was heard before"),
    ],
)
def test_what_became_of_the_messages_of_ike(changes: tuple[Change, ...], verdict: Verdict, text: str) -> None:
    said = found("udp", subject(*changes))[-1]
    assert (said.check, said.verdict, text in said.text) == ("IKE messages", verdict, True)


def test_a_name_and_its_addresses() -> None:
    machine = Made()
    machine.names["gw.example"] = ["203.0.113.1"]
    (other,) = found("names", subject(setting(ADDRESS, "gw.example")), machine)
    assert (other.verdict, "the tunnel is with 198.51.100.1" in other.text) == (NOTE, True)
    machine.names["gw.example"] = ["198.51.100.1"]
    assert found("names", subject(setting(ADDRESS, "gw.example")), machine)[0].verdict is GOOD


def test_the_icv_advice_is_the_other_value() -> None:
    broken = (setting("drops.integrity", 9), setting("mappings.0.packets_in", 0))
    (cut,) = found("icv", subject(*broken))
    assert cut.next is not None
    assert cut.next.startswith("sha256_96 = true in [tunnels.branch-a.ipsec]")
    (whole,) = found("icv", subject(*broken, setting("configuration.ipsec.sha256_96", True)))
    assert whole.next is not None
    assert whole.next.startswith("sha256_96 = false")
    other = subject(*broken, setting("mappings.0.integrity", "sha1"))
    assert found("icv", other)[0].verdict is NOTE


def test_a_range_that_leads_elsewhere() -> None:
    machine = Made({"ip -json route get 10.2.0.1": [{"dev": "eth1"}]})
    _, way = found("interface", subject(), machine)
    assert (way.verdict, "leads to eth1, and not into vpn-branch-a" in way.text) == (NOTE, True)


def test_remarks_about_the_key_come_first() -> None:
    one = subject(DOWN)
    remark = {
        "code": "W-PSK-SPACE",
        "message": "the key begins or ends with white space",
        "hint": "remove it",
    }
    first, _ = found("key", Subject(one.tunnel, {**one.keys, "remarks": [remark]}, one.trace, one.others))
    assert (first.verdict, first.text, first.next) == (NOTE, remark["message"], "remove it")


def rules(packets: int, verdict: str = "drop", table: str = "filter") -> dict[str, Any]:
    expression = [{"match": {}}, {"counter": {"packets": packets, "bytes": 0}}, {verdict: None}]
    rule = {"family": "inet", "table": table, "chain": "input", "handle": 7, "expr": expression}
    return {"nftables": [{"metainfo": {}}, {"rule": rule}]}


def test_a_rule_that_drops_meanwhile_is_named() -> None:
    before = firewall.counters(Made({"nft --json list ruleset": rules(3)}))
    for troubled, verdict in ((False, NOTE), (True, BAD)):
        (finding,) = firewall.compare(before, Made({"nft --json list ruleset": rules(8)}), troubled)
        assert (finding.verdict, finding.next) == (verdict, "nft -a list chain inet filter input")
    assert "inet filter input handle 7 has dropped 5 packets" in finding.text
    for same in (rules(3), rules(8, "accept"), rules(8, table="vpnd")):
        assert [
            one.verdict for one in firewall.compare(before, Made({"nft --json list ruleset": same}), False)
        ] == [GOOD]
    assert [one.verdict for one in firewall.compare(None, Made(), False)] == [UNKNOWN]


def test_a_policy_that_drops_is_suspected_where_something_fails() -> None:
    chain = {"family": "inet", "table": "filter", "name": "input", "policy": "drop"}
    machine = Made({"nft --json list chains": {"nftables": [{"chain": chain}]}})
    (suspected,) = firewall.compare({}, machine, True)
    assert (suspected.verdict, "inet filter input" in suspected.text) == (NOTE, True)
    assert [one.verdict for one in firewall.compare({}, machine, False)] == [GOOD]


def test_every_check_is_made_and_announced() -> None:
    heard: list[str] = []
    findings = list(doctors.examine(subject(), Made(), heard.append, lambda seconds: None))
    assert heard == [*ALL, "firewall"]
    assert {finding.verdict for finding in findings} <= {GOOD, NOTE, UNKNOWN, BAD}


def test_the_program(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctors, "LOOKED", 0.0)
    monkeypatch.setattr(ThisMachine, "run", lambda machine, *command: Made().run(*command))
    monkeypatch.setattr(ThisMachine, "ask", lambda machine, address, port: "silent")
    at = ("--socket", str(remote.socket))
    done = vpnctl(*at, "doctor", "branch-b")
    assert done.code == 1
    assert done.out.splitlines()[0] == "branch-b"
    assert "BAD  state: E-PSK" in done.out
    assert "vpnctl why branch-b" in done.out
    document = json.loads(vpnctl("--json", *at, "doctor").out)
    assert [one["tunnel"] for one in document["tunnels"]] == ["branch-b"]
    assert document["bad"] is True
    assert {"check", "verdict", "text", "next"} == set(document["tunnels"][0]["checks"][0])
    assert vpnctl("--json", *at, "doctor", "nobody").code == 2


def test_the_numbers_of_vpnd_are_those_of_ip() -> None:
    assert (str(LINK_GROUP), hex(MARK)) == (checks.TUNNELS, failures.MARK_OF_OURS)
