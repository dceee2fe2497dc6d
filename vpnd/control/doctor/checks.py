"""The checks, in the order in which a tunnel comes up: the way to the peer, IKE, ESP, this machine."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from vpnd.control.doctor.verdicts import Finding, Json, Machine, Subject, Verdict, as_json

GOOD, NOTE, BAD, UNKNOWN = Verdict.GOOD, Verdict.NOTE, Verdict.BAD, Verdict.UNKNOWN

TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronized."""

SMALLEST_IPV6 = 1280
"""Bytes that every path of IPv6 carries (RFC 8200 section 5); less than that of a tunnel is a fault."""

PING_HEADERS = {4: 28, 6: 48}
"""Bytes of the IP and ICMP headers before a ping's data."""

FEW = 5
"""Ours: packets that have to be lost or dropped before a check calls it a fault."""

Check = Callable[[Subject, Machine], Iterator[Finding]]


def names(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether the peer's name has an address, and the one that is used."""
    address = str(subject.tunnel["configuration"]["customer_gateway"]["address"])
    if address == "any":
        yield Finding("name", GOOD, "the peer may come from any address: there is no name to resolve")
        return
    if _is_address(address):
        yield Finding("name", GOOD, f"{address} is an address: there is no name to resolve")
        return
    try:
        found = machine.resolve(address)
    except OSError as error:
        text = f"{address} cannot be resolved: {error.strerror or error}"
        yield Finding("name", BAD, text, f"getent hosts {address}; or write the peer's address")
        return
    if subject.peer is not None and subject.peer not in found:
        text = f"{address} is {', '.join(found)}, and the tunnel is with {subject.peer}"
        yield Finding("name", NOTE, text, "vpnd looks it up again when the peer is silent")
    else:
        yield Finding("name", GOOD, f"{address} is {', '.join(found)}")


def route(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether there is a way to the peer, and not through the tunnel itself."""
    if subject.peer is None:
        yield Finding("route to the peer", UNKNOWN, "the peer's address is not known yet")
        return
    found = as_json(machine.run("ip", "-json", "route", "get", subject.peer))
    if not found:
        text = f"there is no route to {subject.peer}"
        yield Finding("route to the peer", BAD, text, f"ip route get {subject.peer}")
        return
    device, source = found[0].get("dev"), found[0].get("prefsrc")
    ours = subject.tunnel["local_address"]
    if device == subject.tunnel["interface"]:
        # vpnd's own packets have a mark that leads around the tunnel; another program's have none.
        text = f"{subject.peer} is itself in the ranges of the tunnel; vpnd's packets go around it"
        yield Finding("route to the peer", NOTE, text, "leave the peer's address out of routes")
    elif _is_address(ours) and source not in (None, ours):
        text = f"{subject.peer} by {device} from {source}, and the tunnel uses {ours}"
        yield Finding(
            "route to the peer", NOTE, text, "that is right where two lines are; else gateway.address"
        )
    else:
        yield Finding("route to the peer", GOOD, f"{subject.peer} by {device} from {source or ours}")


def udp(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether IKE passes both ways, on 500 and on 4500."""
    tunnel, attempt = subject.tunnel, subject.tunnel.get("attempt")
    if subject.is_up:
        port, heard = tunnel["peer"]["port"], tunnel["dpd"]["last_heard_s"]
        yield Finding("UDP 500 and 4500", GOOD, f"IKE is up, with UDP {port} there, last heard {heard} s ago")
    elif attempt is not None and not attempt["received"]:
        port, peer = attempt["port"], attempt["peer"]
        text = f"{attempt['sent']} sent, none received in {attempt['since_s']} s on UDP {port}"
        hint = f"let UDP {port} to {peer} and back pass, here, there and in between; is the peer running?"
        yield Finding("UDP 500 and 4500", BAD, text, hint)
    elif attempt is not None:
        text = f"{attempt['sent']} sent, {attempt['received']} received on UDP {attempt['port']}"
        yield Finding("UDP 500 and 4500", GOOD, text)
    elif any(line["direction"] == "in" for line in subject.trace):
        yield Finding("UDP 500 and 4500", NOTE, "the peer was heard before, and nothing is under way now")
    else:
        text = "nothing was sent and nothing came"
        yield Finding("UDP 500 and 4500", UNKNOWN, text, f"vpnctl up {tunnel['name']}, then doctor again")


def nat(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether a NAT is between the two."""
    if not subject.is_up:
        yield Finding("NAT", UNKNOWN, "it is known once IKE is up")
    elif subject.tunnel["peer"]["nat"]:
        yield Finding("NAT", NOTE, "there is a NAT, or the peer forces UDP: ESP goes over UDP 4500")
    else:
        yield Finding("NAT", GOOD, "none on the way")


def key(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """What is probably wrong with the key, and what to compare."""
    for remark in subject.keys.get("remarks") or ():
        yield Finding("key", NOTE, remark["message"], remark["hint"])
    name, current = subject.tunnel["name"], subject.keys["current"]
    if subject.is_up:
        yield Finding("key", GOOD, f"both ends have proved it; fingerprint {current}")
    else:
        hint = f"vpnctl psk fingerprint {name}, at both ends"
        yield Finding("key", NOTE, f"fingerprint {current}: is it the peer's as well?", hint)


def clock(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether this machine's clock is synchronized: lifetimes do not need it, times in logs do."""
    state = _clock_state()
    if state is None:
        yield Finding("clock", UNKNOWN, "the kernel does not say whether it is synchronized")
    elif state == TIME_ERROR:
        text = "it is not synchronized; keys that end at a time, and logs to compare, need that"
        yield Finding("clock", NOTE, text, "timedatectl set-ntp true")
    else:
        yield Finding("clock", GOOD, "it is synchronized")


def failure(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """What stands against the tunnel now."""
    name = subject.tunnel["name"]
    for fault in (
        subject.tunnel["last_error"] if not subject.is_up else None,
        subject.tunnel.get("impaired"),
    ):
        if fault is not None:
            yield Finding("state", BAD, f"{fault['code']}  {fault['message']}", f"vpnctl why {name}")
    for mapping in subject.tunnel["mappings"]:
        if mapping["reason"] is not None:
            ranges = f"{mapping['local']} - {mapping['remote']}"
            text = f"{ranges}: {mapping['reason']['code']}  {mapping['reason']['message']}"
            yield Finding("state", BAD, text, f"vpnctl why {name}")


def overlap(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether ranges of the tunnel are also those of an interface here, or of another tunnel."""
    ours, found = list(_remote_ranges(subject.tunnel)), False
    for device, network in _networks(machine):
        for one in ours if device != subject.tunnel["interface"] else ():
            if _overlap(one, network):
                found = True
                text = f"{one} overlaps with {network} of {device}: hosts there are reached directly"
                yield Finding("overlap", NOTE, text, "is that meant? else make the range smaller")
    for other in subject.others:
        for one in ours if other["name"] != subject.tunnel["name"] else ():
            for two in _mapping_ranges(other):
                if _overlap(one, two):
                    found = True
                    text = f"{one} overlaps with {two} of {other['name']}: the smaller one wins"
                    yield Finding("overlap", NOTE, text, "is that meant?")
    if not found:
        yield Finding("overlap", GOOD, "no range of it is an interface's or another tunnel's")


def pfs(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether a rekey of the ESP SAs was seen to work: in IKEv2 that is where a difference in PFS shows."""
    name, configured = subject.tunnel["name"], subject.tunnel["configuration"]["ipsec"]["pfs"]
    if not subject.is_up:
        yield Finding("PFS", UNKNOWN, f"configured: {_words(configured)}; it shows at the first rekey")
        return
    groups = {mapping["pfs"] for mapping in subject.tunnel["mappings"] if mapping["state"] == "up"}
    if subject.tunnel["ike"]["version"] == "ikev1":
        yield Finding("PFS", GOOD, f"agreed on: {_words(sorted(map(str, groups)))}")
    elif any("N(REKEY_SA)" in line["text"] for line in subject.trace):
        yield Finding("PFS", GOOD, f"the ESP SAs were rekeyed; configured: {_words(configured)}")
    else:
        hint = f"vpnctl rekey {name} --child"
        yield Finding("PFS", NOTE, "no rekey yet, where a difference in PFS would show", hint)


def icv(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Packets that do not verify: old peers cut HMAC-SHA-256 to 96 bits."""
    drops, name = subject.tunnel["drops"]["integrity"], subject.tunnel["name"]
    ipsec = subject.tunnel["configuration"]["ipsec"]
    suites = {(m["encryption"], m["integrity"]) for m in subject.tunnel["mappings"] if m["state"] == "up"}
    sha256 = any(integrity == "sha256" for _, integrity in suites)
    if drops >= FEW and sha256 and not subject.total("packets_in"):
        other = not ipsec["sha256_96"]
        text = f"{drops} ESP packets came and none verifies: one end cuts HMAC-SHA-256 to 96 bits"
        place = f"[tunnels.{name}.ipsec]"
        yield Finding("ICV", BAD, text, f"sha256_96 = {str(other).lower()} in {place}; or another integrity")
    elif drops:
        text = f"{drops} ESP packets did not verify, others did: damaged or forged on the way"
        yield Finding("ICV", NOTE, text, "a few are no fault")
    else:
        yield Finding(
            "ICV", GOOD, "every ESP packet that came verified" if subject.is_up else "nothing came yet"
        )


def path_mtu(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """The largest ping that comes back from the other side's health check address."""
    health, mtu = subject.tunnel["health"], subject.tunnel["mtu"]
    if mtu is not None and mtu < SMALLEST_IPV6:
        text = f"the tunnel carries {mtu} bytes, and IPv6 needs {SMALLEST_IPV6}"
        yield Finding("path MTU", NOTE, text, "is a path on the way so small? tunnels.NAME.mtu sets it")
    if not subject.is_up or health is None or not health["remote"] or mtu is None:
        text = "to try it, something inside has to answer: the health check names who"
        yield Finding("path MTU", UNKNOWN, text, "health_check.enabled = true at both ends")
        return
    remote, local = health["remote"], health["local"]
    headers = PING_HEADERS[ip_address(remote).version]
    for size in (mtu, SMALLEST_IPV6, 576):
        if size <= mtu and _pings(machine, local, remote, size - headers):
            if size == mtu:
                yield Finding("path MTU", GOOD, f"packets of {mtu} bytes come back")
            else:
                text = f"packets of {size} bytes come back, and of {mtu} do not"
                name = subject.tunnel["name"]
                yield Finding("path MTU", BAD, text, f"mtu = {size} in [tunnels.{name}], here and there")
            return
    yield Finding(
        "path MTU", BAD, f"{remote} answers no ping", "does the peer know the address and answer it?"
    )


def return_path(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether packets come back."""
    sent, received = subject.total("packets_out"), subject.total("packets_in")
    text = f"{sent} packets sent, {received} received by the present ESP SAs"
    if subject.is_up and sent >= FEW and not received:
        hint = "does the peer have a route back for our ranges, and does its firewall let ESP in?"
        yield Finding("return path", BAD, text, hint)
    else:
        yield Finding("return path", GOOD if received else UNKNOWN, text)


def forwarding(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether this machine forwards packets for networks behind it."""
    versions = {network.version for network in _remote_ranges(subject.tunnel)}
    for version, path in ((4, "ipv4/ip_forward"), (6, "ipv6/conf/all/forwarding")):
        if version not in versions:
            continue
        value = machine.read(f"/proc/sys/net/{path}")
        if value == "0":
            text = f"this machine forwards no IPv{version}: only its own traffic uses the tunnel"
            setting = f"net.{path.replace('/', '.')}"
            yield Finding("forwarding", NOTE, text, f"sysctl -w {setting}=1, for networks behind it")
        elif value is None:
            yield Finding("forwarding", UNKNOWN, f"/proc/sys/net/{path} cannot be read")
        else:
            yield Finding("forwarding", GOOD, f"IPv{version} is forwarded")


def reverse_path(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """rp_filter: strict, it drops what comes out of a tunnel whose routes are rules."""
    name = subject.tunnel["interface"]
    values = [machine.read(f"/proc/sys/net/ipv4/conf/{one}/rp_filter") for one in ("all", name)]
    if values[1] is None:
        yield Finding("rp_filter", UNKNOWN, f"{name} has no rp_filter: is the interface there?")
    elif "1" in (max(value or "0" for value in values),):
        text = f"rp_filter is strict on {name}: packets whose answer would go elsewhere are dropped"
        yield Finding("rp_filter", NOTE, text, f"sysctl -w net.ipv4.conf.{name}.rp_filter=2")
    else:
        yield Finding("rp_filter", GOOD, "it drops nothing that comes out of the tunnel")


def interface(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether the interface is up, and routes lead to it."""
    name = subject.tunnel["interface"]
    found = as_json(machine.run("ip", "-json", "link", "show", "dev", name))
    if not found:
        hint = f"vpnctl why {subject.tunnel['name']}; vpnd makes it again"
        yield Finding("interface", BAD, f"{name} is not there", hint)
        return
    if "UP" not in (found[0].get("flags") or ()):
        yield Finding("interface", BAD, f"{name} is down", f"ip link set {name} up")
        return
    yield Finding("interface", GOOD, f"{name} is up, MTU {found[0].get('mtu')}")
    if not subject.is_up or not subject.tunnel["carries_traffic"]:
        return
    for network in _remote_ranges(subject.tunnel):
        inside = network.network_address + (1 if network.num_addresses > 2 else 0)
        if not network.prefixlen:
            continue
        ways = as_json(machine.run("ip", "-json", "route", "get", str(inside)))
        device = ways[0].get("dev") if ways else None
        if device == name:
            yield Finding("routes", GOOD, f"{network} leads into {name}")
        else:
            text = f"{inside} of {network} leads to {device or 'nowhere'}, and not into {name}"
            yield Finding("routes", NOTE, text, f"ip route get {inside}: another route, or a local network?")


CHECKS: tuple[Check, ...] = (
    names, route, udp, nat, key, clock, failure, overlap, pfs, icv, path_mtu, return_path, forwarding,
    reverse_path, interface,
)  # fmt: skip
"""All but that of the firewall, which looks twice (`vpnd.control.doctor.firewall`)."""


def _pings(machine: Machine, local: str | None, remote: str, size: int) -> bool:
    source = ("-I", local) if local else ()
    return (
        machine.run("ping", "-n", "-q", "-c", "2", "-W", "1", "-M", "do", *source, "-s", str(size), remote)
        is not None
    )


def _overlap(one: Any, two: Any) -> bool:
    """Whether two networks share addresses, and are neither the same nor everything."""
    if one.version != two.version or one == two or not (one.prefixlen and two.prefixlen):
        return False
    return bool(one.overlaps(two))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _remote_ranges(tunnel: Json) -> Iterator[Any]:
    for text in tunnel["routes"] or [mapping["remote"] for mapping in tunnel["mappings"]]:
        try:
            yield ip_network(text)
        except ValueError:
            continue  # A range that is no network.


def _mapping_ranges(tunnel: Json) -> Iterator[Any]:
    for mapping in tunnel["mappings"]:
        try:
            yield ip_network(mapping["remote"])
        except ValueError:
            continue


def _networks(machine: Machine) -> Iterator[tuple[str, Any]]:
    """The networks of this machine's interfaces."""
    for link in as_json(machine.run("ip", "-json", "address")):
        for address in link.get("addr_info") or ():
            if link.get("ifname") != "lo" and address.get("scope") == "global":
                text = f"{address.get('local')}/{address.get('prefixlen')}"
                network = ip_network(text, strict=False)
                if network.num_addresses > 1:
                    yield str(link["ifname"]), network


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _clock_state() -> int | None:
    """What adjtimex(2) returns; it reads with an empty request."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)))
    except (OSError, AttributeError):
        return None
