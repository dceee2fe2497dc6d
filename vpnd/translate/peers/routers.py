"""What the command lines of routers have in common: wildcards, ports, values that stand once."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface

from vpnd.model.identity import Identity
from vpnd.model.selectors import Network
from vpnd.translate.sheet import SM, Sheet
from vpnd.translate.side import Side, Traffic
from vpnd.wire.iana import IdType

OUTSIDE = "OUTSIDE-INTERFACE"
"""Stands for the interface that the peer reaches us by: its name is the peer's own."""

SHARED_PREFIX = 30
"""The health check's two addresses fit the usual network of a tunnel interface, where they share it."""


def masked(network: Network) -> str:
    """`10.1.0.0 255.255.255.0`."""
    return f"{network.network_address} {network.netmask}"


def wildcard(network: Network) -> str:
    """`10.1.0.0 0.0.0.255`, as access lists have it."""
    return f"{network.network_address} {network.hostmask}"


def is_name(identity: Identity) -> bool:
    """Whether it is a domain name, not an address."""
    return identity.type == IdType.FQDN


def name_of(identity: Identity) -> str:
    """The text of a domain name, without the `@` of our word."""
    return identity.value.decode("ascii")


def limited(seconds: int, low: int, high: int, what: str, sheet: Sheet) -> int:
    """A lifetime within what the product takes; another is noted."""
    value = min(max(seconds, low), high)
    if value != seconds:
        sheet.note(
            f"{sheet.product} takes {low} to {high} for the {what}: {value} is written, and this end has"
            f" {seconds}. The shorter one decides."
        )
    return value


def no_esn(side: Side, sheet: Sheet) -> None:
    """For products without extended sequence numbers."""
    if side.esn == "yes":
        sheet.cannot(
            f"{sheet.product} has no extended sequence numbers, and this tunnel insists on them: set"
            ' ipsec.esn = "auto"'
        )


def full_icv(side: Side, sheet: Sheet) -> None:
    """For products that have the 128 bits of RFC 4868, or 96 without a switch."""
    if side.sha256_96:
        sheet.note(
            f"This end cuts HMAC-SHA-256 to 96 bits (ipsec.sha256_96 = true), which {sheet.product} has no"
            " switch for. Keep it only for an old release that cuts it too; else every packet is dropped."
        )


def reachable(side: Side, sheet: Sheet) -> str:
    """Our address, which these products have to know."""
    if side.remote_address is None:
        sheet.cannot(f"{sheet.product} has to know our address, and gateway.address is not known: set it")
    elif side.remote_moves:
        sheet.note("Our address follows the default route. When it changes, change it here as well.")
    return str(side.remote_address)


def own_address(side: Side) -> str:
    """The peer's address, or a placeholder where it is known by name or may be any."""
    return "THE-PEERS-OWN-ADDRESS" if side.local_address is None else str(side.local_address)


def inside_address(side: Side) -> str:
    """`ADDRESS MASK` of a tunnel interface, which these products want in any case."""
    if side.health is None:
        return "ADDRESS-OF-THIS-INTERFACE 255.255.255.252"
    local, remote = side.health
    network = ip_interface(f"{local}/{SHARED_PREFIX}").network
    return f"{local} {network.netmask if remote in network else '255.255.128.0'}"


def one_port(side: Side, sheet: Sheet) -> None:
    """For products whose selectors have one port, no range."""
    if any("-" in (port or "") for one in side.traffic for port in (one.local_port, one.remote_port)):
        sheet.cannot(f"{sheet.product} has one port in a selector, no range: write single ports in spd")


def needs_route(side: Side, sheet: Sheet) -> None:
    """What is not known at this end."""
    if side.routed:
        sheet.note(
            f"The networks behind {side.gateway} are not known at this end: replace"
            f" {side.behind} and add one route for each."
        )


def cisco_rule(traffic: Traffic, written: Callable[[Network], str]) -> str:
    """What an extended access list of IOS or ASA permits; `written` is how it has a network."""
    ends = (
        f"{written(network)}{_cisco_ports(port)}"
        for network, port in ((traffic.local, traffic.local_port), (traffic.remote, traffic.remote_port))
    )
    return f"permit {traffic.protocol or 'ip'} {' '.join(ends)}"


def _cisco_ports(port: str | None) -> str:
    if port is None:
        return ""
    first, _, last = port.partition("-")
    return f" range {first} {last}" if last else f" eq {first}"


def acl(side: Side) -> list[str]:
    """The rules of an advanced access list, as VRP and Comware have it."""
    rules = []
    for index, one in enumerate(side.traffic):
        ends = (
            f"{end} {wildcard(network)}{_acl_ports(end, port)}"
            for end, network, port in (
                ("source", one.local, one.local_port),
                ("destination", one.remote, one.remote_port),
            )
        )
        rules.append(f" rule {5 * (index + 1)} permit {one.protocol or 'ip'} {' '.join(ends)}")
    return rules


def _acl_ports(end: str, port: str | None) -> str:
    if port is None:
        return ""
    first, _, last = port.partition("-")
    return f" {end}-port range {first} {last}" if last else f" {end}-port eq {first}"


def sm_note(side: Side, sheet: Sheet) -> None:
    """SM4 and SM3 have no registered numbers in IKE."""
    if SM & {*side.ike.encryption, *side.ike.integrity, *side.esp.encryption, *side.esp.integrity}:
        sheet.note(
            "SM4 and SM3 have no registered numbers in IKE, and some releases take them with certificates"
            " only. This was not tried with this product: where it is refused, compare"
            " [tunnels.NAME.sm_numbers] with the peer's offer (vpnctl trace NAME), or take AES and SHA-256."
        )
