"""The checks, in the order in which a tunnel comes up: the way to the peer, IKE, ESP, this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from time import gmtime, strftime
from typing import Any

from vpnd.control.doctor.verdicts import Finding, Json, Machine, Subject, Verdict, as_json
from vpnd.control.failures import MARK_OF_OURS
from vpnd.crypto.suites import as_cut
from vpnd.datapath.mtu import inner_mtu, path_mtu_of
from vpnd.model.proposals import Suite

GOOD, NOTE, BAD, UNKNOWN = Verdict.GOOD, Verdict.NOTE, Verdict.BAD, Verdict.UNKNOWN

IKE_PORTS = (500, 4500)

KEY_DIFFERS, PFS_DIFFERS, NOT_FORWARDED = "E-PSK", "E-PFS", "E-NOFORWARD"
"""Codes of the daemon that settle a check."""

RELEASED = 1_767_225_600.0
"""2026-01-01: a clock that says less is wrong."""

SMALLEST_IPV6 = 1280
"""Bytes that every path of IPv6 carries (RFC 8200 section 5); less than that of a tunnel is a fault."""

SMALLEST_IPV4 = 576
NEAR = 8
"""Ours: bytes to which the path MTU is found."""

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
    if _is_of_a_tunnel(subject, machine, device):
        yield _into_a_tunnel(subject, machine, str(device))
    elif _is_address(ours) and source not in (None, ours):
        text = f"{subject.peer} by {device} from {source}, and the tunnel uses {ours}"
        yield Finding(
            "route to the peer", NOTE, text, "that is right where two lines are; else gateway.address"
        )
    else:
        yield Finding("route to the peer", GOOD, f"{subject.peer} by {device} from {source or ours}")


TUNNELS = "30320"
"""The group of links in which every interface of a tunnel is, as `ip` writes it."""


def _is_of_a_tunnel(subject: Subject, machine: Machine, device: str | None) -> bool:
    """Whether an interface is that of this tunnel, or of another one of vpnd."""
    if device is None or device == subject.tunnel["interface"]:
        return device is not None
    links = as_json(machine.run("ip", "-json", "link", "show", "dev", device))
    return bool(links) and links[0].get("group") == TUNNELS


def _into_a_tunnel(subject: Subject, machine: Machine, device: str) -> Finding:
    """vpnd's own packets have a mark that leads around what it has set up; another program's have none."""
    peer = str(subject.peer)
    marked = as_json(machine.run("ip", "-json", "route", "get", peer, "mark", MARK_OF_OURS))
    if marked and _is_of_a_tunnel(subject, machine, marked[0].get("dev")):
        text = f"{peer} leads into {device}, the interface of a tunnel, and so does what vpnd sends itself"
        hint = f"remove that route (ip route show dev {device}), or: ip route add {peer} via ROUTER"
        return Finding("route to the peer", BAD, text, hint)
    text = f"{peer} is itself in the ranges of the tunnel; vpnd's packets go around it"
    return Finding("route to the peer", NOTE, text, "leave the peer's address out of routes")


def udp(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether UDP passes both ways, on 500 and on 4500: by a message of our own, and by those of IKE."""
    yield from _asked(subject, machine)
    tunnel, attempt = subject.tunnel, subject.tunnel.get("attempt")
    if subject.is_up:
        port, heard = tunnel["peer"]["port"], tunnel["dpd"]["last_heard_s"]
        yield Finding("IKE messages", GOOD, f"IKE is up, with UDP {port} there, last heard {heard} s ago")
    elif attempt is not None and not attempt["received"]:
        port, peer = attempt["port"], attempt["peer"]
        text = f"{attempt['sent']} sent, none received in {attempt['since_s']} s on UDP {port}"
        hint = f"let UDP {port} to {peer} and back pass, here, there and in between; is the peer running?"
        yield Finding("IKE messages", BAD, text, hint)
    elif attempt is not None:
        text = f"{attempt['sent']} sent, {attempt['received']} received on UDP {attempt['port']}"
        yield Finding("IKE messages", GOOD, text)
    elif any(line["direction"] == "in" for line in subject.trace):
        yield Finding("IKE messages", NOTE, "the peer was heard before, and nothing is under way now")
    else:
        text = "nothing was sent and nothing came"
        yield Finding("IKE messages", UNKNOWN, text, f"vpnctl up {tunnel['name']}, then doctor again")


def _asked(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """What comes of a message to each port. Only peers that know us answer, and some only from port 500."""
    if subject.peer is None or not _is_address(subject.peer):
        yield Finding("UDP 500 and 4500", UNKNOWN, "the peer's address is not known yet")
        return
    said = {port: machine.ask(subject.peer, port) for port in IKE_PORTS}
    answers = any(word is None for word in said.values())
    for port, word in said.items():
        check = f"UDP {port}"
        if word is None:
            yield Finding(check, GOOD, f"{subject.peer} answers what is sent to it")
        elif word == "ECONNREFUSED":
            text = f"{subject.peer} says that nothing listens there"
            yield Finding(check, BAD, text, f"is the peer's IKE service running, on UDP {port}?")
        elif word in ("EHOSTUNREACH", "ENETUNREACH", "EACCES", "EPERM"):
            text = f"what is sent to {subject.peer} is refused on its way ({word})"
            yield Finding(check, BAD, text, f"a route, or a firewall here or on the way: let UDP {port} pass")
        elif answers:
            text = f"no answer, and on UDP {min(set(IKE_PORTS) - {port})} there is one"
            hint = f"a firewall drops it: let UDP {port} pass, here, there and in between"
            yield Finding(check, BAD, text, hint)
        else:
            hint = "peers answer only whom they know: compare with the messages of IKE, below"
            yield Finding(check, UNKNOWN, f"no answer to a message of our own ({word})", hint)


def nat(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether a NAT is between the two, and on whose side; one that lets port 4500 not pass is a fault."""
    tunnel, attempt = subject.tunnel, subject.tunnel.get("attempt")
    if not subject.is_up:
        if attempt is not None and attempt["port"] == IKE_PORTS[1] and not attempt["received"]:
            text = "IKE goes on to UDP 4500, for a NAT or by force, and nothing comes back from there"
            hint = "let UDP 4500 pass, here, there and in between; does a NAT there lead it to the peer?"
            yield Finding("NAT", BAD, text, hint)
        else:
            yield Finding("NAT", UNKNOWN, "it is known once IKE is up")
        return
    match tunnel["peer"]["nat_at"]:
        case "here":
            text, hint = "this machine is behind one", "the peer sees another address than ours"
        case "there":
            text = "the peer is behind one, or forces UDP"
            hint = "a peer behind a NAT has to begin, unless ports 500 and 4500 are led to it"
        case "both":
            text, hint = (
                "both are behind one, or the peer forces UDP",
                "one side's ports have to be led to it",
            )
        case _:
            yield Finding("NAT", GOOD, "none on the way")
            return
    yield Finding("NAT", NOTE, f"{text}: ESP goes over UDP 4500", hint)


def key(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """What is probably wrong with the key, and what to compare."""
    fault = subject.tunnel["last_error"] if not subject.is_up else None
    suspected = fault is not None and fault["code"] == KEY_DIFFERS
    for remark in subject.keys.get("remarks") or ():
        yield Finding("key", BAD if suspected else NOTE, remark["message"], remark["hint"])
    name, current = subject.tunnel["name"], subject.keys["current"]
    hint = f"vpnctl psk fingerprint {name}, at both ends"
    if subject.is_up:
        yield Finding("key", GOOD, f"both ends have proved it; fingerprint {current}")
    elif suspected:
        text = f"the peer has refused it, or our identity; fingerprint {current}: is it the peer's as well?"
        yield Finding("key", BAD, text, hint)
    else:
        yield Finding("key", NOTE, f"fingerprint {current}: is it the peer's as well?", hint)


def clock(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """Whether this machine's clock is right: lifetimes do not need it; keys that end, and logs, do."""
    now, state = machine.now(), machine.synchronized()
    if now < RELEASED:
        text = f"it says {strftime('%Y-%m-%d', gmtime(now))}, which is before this release was made"
        yield Finding("clock", BAD, text, "timedatectl set-ntp true; or date -s")
    elif state is None:
        yield Finding("clock", UNKNOWN, "the kernel does not say whether it is synchronized")
    elif state:
        yield Finding("clock", GOOD, "it is synchronized")
    elif subject.tunnel["configuration"].get("retire_after"):
        text = "it is not synchronized, and a key ends by it (retire_after)"
        yield Finding("clock", BAD, text, "timedatectl set-ntp true")
    else:
        text = "it is not synchronized; keys that end at a time, and logs to compare, need that"
        yield Finding("clock", NOTE, text, "timedatectl set-ntp true")


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
            if one.version != network.version or not one.prefixlen or not one.overlaps(network):
                continue
            found = True
            if one.prefixlen >= network.prefixlen:
                text = f"{one} is the network of {device}, or in it ({network}): both sides have it"
                hint = "one of them needs other addresses, or a NAT of its network"
                yield Finding("overlap", BAD, text, hint)
            else:
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
    reasons = [mapping["reason"] for mapping in subject.tunnel["mappings"]]
    differs = [one for one in (*reasons, subject.tunnel["last_error"]) if one and one["code"] == PFS_DIFFERS]
    if differs:
        yield Finding("PFS", BAD, differs[0]["message"], f"vpnctl why {name}")
        return
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
    """The largest ping that comes back: from the health check's other end, else from the peer itself."""
    health, mtu = subject.tunnel["health"], subject.tunnel["mtu"]
    if mtu is not None and mtu < SMALLEST_IPV6:
        text = f"the tunnel carries {mtu} bytes, and IPv6 needs {SMALLEST_IPV6}"
        yield Finding("path MTU", NOTE, text, "is a path on the way so small? tunnels.NAME.mtu sets it")
    if not subject.is_up or mtu is None:
        yield Finding("path MTU", UNKNOWN, "it is known once the tunnel is up")
        return
    if health is None or not health["remote"]:
        yield _outside(subject, machine, mtu)
        return
    remote, local = health["remote"], health["local"]
    largest = _largest(machine, local, remote, mtu)
    if largest == mtu:
        yield Finding("path MTU", GOOD, f"packets of {mtu} bytes come back")
    elif largest is None:
        hint = "does the peer know the address and answer it?"
        yield Finding("path MTU", BAD, f"{remote} answers no ping", hint)
    else:
        text = f"packets of {largest} bytes come back, and of {mtu} do not"
        place = f"[tunnels.{subject.tunnel['name']}]"
        yield Finding("path MTU", BAD, text, f"mtu = {largest} in {place}, here and there")


def _outside(subject: Subject, machine: Machine, mtu: int) -> Finding:
    """Where nothing inside is to answer: whether the path carries the datagrams of the largest packets."""
    carried = next((one for one in subject.tunnel["mappings"] if one["encryption"]), None)
    if carried is None or subject.peer is None or not _is_address(subject.peer):
        return Finding("path MTU", UNKNOWN, "it is known once the tunnel is up")
    sha256_96 = bool(subject.tunnel["configuration"]["ipsec"]["sha256_96"])
    suite = as_cut(Suite(carried["encryption"], None, carried["integrity"], None), sha256_96)
    travels = suite, carried["encapsulation"] == "udp", ip_address(subject.peer).version
    outer = path_mtu_of(mtu, *travels)
    largest = _largest(machine, None, subject.peer, outer)
    if largest is None:
        text = f"{subject.peer} answers no ping, and there is no health check inside the tunnel"
        hint = "health_check.enabled = true at both ends; or let the peer answer pings for the moment"
        return Finding("path MTU", UNKNOWN, text, hint)
    if largest == outer:
        text = f"datagrams of {outer} bytes come back from the peer: packets of {mtu} fit"
        return Finding("path MTU", GOOD, f"{text} (outside the tunnel)")
    inner = inner_mtu(largest, *travels)
    text = f"datagrams of {largest} bytes come back from the peer, and of {outer} do not, which packets of"
    hint = f"mtu = {inner} in [tunnels.{subject.tunnel['name']}], here and there"
    return Finding("path MTU", BAD, f"{text} {mtu} need", hint)


def _largest(machine: Machine, local: str | None, remote: str, mtu: int) -> int | None:
    """Bytes of the largest packet that comes back, to within `NEAR`; None: none does."""
    headers = PING_HEADERS[ip_address(remote).version]
    if _pings(machine, local, remote, mtu - headers):
        return mtu
    passes = next((size for size in (SMALLEST_IPV6, SMALLEST_IPV4) if size < mtu
                   and _pings(machine, local, remote, size - headers)), None)  # fmt: skip
    fails = mtu if passes != SMALLEST_IPV4 else min(mtu, SMALLEST_IPV6)
    while passes is not None and fails - passes > NEAR:
        middle = (passes + fails) // 2
        if _pings(machine, local, remote, middle - headers):
            passes = middle
        else:
            fails = middle
    return passes


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
    stuck = subject.tunnel.get("impaired")
    if stuck is not None and stuck["code"] == NOT_FORWARDED:
        yield Finding("forwarding", BAD, stuck["message"], f"vpnctl why {subject.tunnel['name']}")
    for version, path in ((4, "ipv4/ip_forward"), (6, "ipv6/conf/all/forwarding")):
        if version not in versions:
            continue
        value = machine.read(f"/proc/sys/net/{path}")
        if value == "0":
            text = f"this machine forwards no IPv{version}: only its own traffic uses the tunnel"
            setting = f"net.{path.replace('/', '.')}"
            verdict = BAD if version in _networks_behind(subject.tunnel) else NOTE
            yield Finding("forwarding", verdict, text, f"sysctl -w {setting}=1, for networks behind it")
        elif value is None:
            yield Finding("forwarding", UNKNOWN, f"/proc/sys/net/{path} cannot be read")
        else:
            yield Finding("forwarding", GOOD, f"IPv{version} is forwarded")


def _networks_behind(tunnel: Json) -> set[int]:
    """The IP versions of which our side of a mapping is a network, and not this machine or everything."""
    found: set[int] = set()
    for mapping in tunnel["mappings"]:
        with suppress(ValueError):
            network = ip_network(mapping["local"])
            if network.prefixlen and network.num_addresses > 1:
                found.add(network.version)
    return found


def reverse_path(subject: Subject, machine: Machine) -> Iterator[Finding]:
    """rp_filter: strict, it drops what comes out of a tunnel while the way back is another."""
    name = subject.tunnel["interface"]
    values = [machine.read(f"/proc/sys/net/ipv4/conf/{one}/rp_filter") for one in ("all", name)]
    if values[1] is None:
        yield Finding("rp_filter", UNKNOWN, f"{name} has no rp_filter: is the interface there?")
    elif max(value or "0" for value in values) == "1":
        elsewhere = [
            f"{network} by {device}"
            for network in _remote_ranges(subject.tunnel)
            if network.version == 4 and network.prefixlen and (device := _way(machine, network)) != name
        ]
        text = f"rp_filter is strict on {name}: packets whose answer would go elsewhere are dropped"
        hint = f"sysctl -w net.ipv4.conf.{name}.rp_filter=2"
        if elsewhere and subject.is_up:
            yield Finding("rp_filter", BAD, f"{text}, and {elsewhere[0]} does", hint)
        else:
            yield Finding("rp_filter", NOTE, text, hint)
    else:
        yield Finding("rp_filter", GOOD, "it drops nothing that comes out of the tunnel")


def _way(machine: Machine, network: Any) -> str | None:
    """The interface by which a host of this network is reached."""
    inside = network.network_address + (1 if network.num_addresses > 2 else 0)
    ways = as_json(machine.run("ip", "-json", "route", "get", str(inside)))
    return str(ways[0].get("dev")) if ways else None


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
