"""Between a mapping and the identities of quick mode (RFC 2407 section 4.6.2): one pair of ranges each."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network

from vpnd.model.selectors import ANY_PORT, Selector, ports_text
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IdType
from vpnd.wire.ikev1 import Id


def id_of(selector: Selector) -> Id:
    """IDci or IDcr of one side of a mapping: a subnet, or an address where it is one host.

    It has room for one port, or 0 for any. Raises ValueError for a range of them.
    """
    (network,) = selector.networks()
    ports = (selector.port_start, selector.port_end)
    if ports[0] != ports[1] and ports != ANY_PORT:
        raise ValueError(f"IKEv1 has no identity for the ports {ports_text(ports)}")
    about = (selector.protocol, 0 if ports == ANY_PORT else ports[0])
    if network.version == 4:
        single, subnet = IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET
    else:
        single, subnet = IdType.IPV6_ADDR, IdType.IPV6_ADDR_SUBNET
    if network.prefixlen == network.max_prefixlen:
        return Id(single, network.network_address.packed, *about)
    return Id(subnet, network.network_address.packed + network.netmask.packed, *about)


@lru_cache(maxsize=1024)
def selector_of(identity: Id) -> Selector:
    """The range that a quick mode identity names. Raises DecodeError for a type or length without one."""
    value = identity.value
    family: type[IPv4Address] | type[IPv6Address]
    family, size = (IPv4Address, 4) if identity.type in _IPV4 else (IPv6Address, 16)
    if identity.type not in _IPV4 | _IPV6:
        raise DecodeError("ID type", f"{identity.type} is no range of addresses")
    wanted = size if identity.type in (IdType.IPV4_ADDR, IdType.IPV6_ADDR) else 2 * size
    if len(value) != wanted:
        raise DecodeError("ID data", f"{len(value)} bytes for type {identity.type}")
    first, last = family(value[:size]), family(value[-size:])
    ports = (identity.port, identity.port) if identity.port else (0, 65535)
    try:
        if identity.type in (IdType.IPV4_ADDR_SUBNET, IdType.IPV6_ADDR_SUBNET):
            network = ip_network(f"{first}/{_prefix(last)}", strict=False)
            first, last = network[0], network[-1]
        return Selector(first, last, identity.protocol, *ports)
    except ValueError as error:
        raise DecodeError("ID data", "no range of addresses") from error


_IPV4 = {IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET, IdType.IPV4_ADDR_RANGE}
_IPV6 = {IdType.IPV6_ADDR, IdType.IPV6_ADDR_SUBNET, IdType.IPV6_ADDR_RANGE}


def _prefix(mask: IPv4Address | IPv6Address) -> int:
    """The length of a mask's prefix. Raises ValueError for ones behind a zero."""
    bits = format(int(mask), f"0{mask.max_prefixlen}b")
    if "01" in bits:
        raise ValueError(f"{mask} is no mask")
    return bits.count("1")
