"""What is asked of netlink a message at a time, and what it says: links, addresses, rules, ways.

The only file that knows pyroute2, of which it takes the messages: they write and read themselves. Its socket,
with what belongs to that, would be a sixth of what a start imports; `rtnetlink` sends and receives.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec, module_from_spec
from ipaddress import ip_address, ip_network
from typing import Any

from vpnd.host import rtnetlink
from vpnd.host.routes import PROTOCOL, Rule
from vpnd.host.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLMSG_HEADER
from vpnd.model.policy import ALL_IPV4, ALL_IPV6
from vpnd.model.selectors import ANY_PORT, Address, Network, Ports


def _messages_of_pyroute2() -> tuple[type[Any], type[Any], type[Any], type[Any]]:
    """Four classes of messages, without what else `import pyroute2` imports: it takes eight times as long.

    The package stands there with its path and empty meanwhile; a later import gets all of it.
    """
    name, spec = "pyroute2", find_spec("pyroute2")
    empty = name not in sys.modules and spec is not None
    if empty and spec is not None:
        sys.modules[name] = module_from_spec(spec)
    try:
        from pyroute2.netlink.rtnl.fibmsg import fibmsg
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
    finally:
        if empty:
            del sys.modules[name]
    return fibmsg, ifaddrmsg, ifinfmsg, rtmsg


RuleMessage, AddressMessage, LinkMessage, RouteMessage = _messages_of_pyroute2()

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

IFF_UP = 0x1
ADDR_GEN_MODE_NONE = 1
RTM_F_FIB_MATCH = 0x2000
FR_ACT_TO_TBL = 1
FIB_RULE_INVERT = 2


# -------------------------------------------------------------------------------------- links


def set_link(index: int, *, up: bool = False, **attributes: int | str) -> None:
    """Change an interface by attributes such as IFLA_MTU: the others stay as they are. Raises OSError."""
    flags = IFF_UP if up else 0
    _change(
        RTM_NEWLINK, 0, LinkMessage, {"index": index, "flags": flags, "change": flags}, attributes.items()
    )


@cache
def _quiet() -> bytes:
    """The attributes of `set_quiet`, made once: what is nested costs pyroute2 most."""
    quiet = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]})]}
    fields = len(_written(LinkMessage, {}))
    return _written(LinkMessage, {}, [("IFLA_AF_SPEC", quiet)])[fields:]


def set_quiet(index: int) -> None:
    """No link-local IPv6 address is made for an interface. Raises OSError, also where there is no IPv6."""
    rtnetlink.change(RTM_NEWLINK, 0, _written(LinkMessage, {"index": index}) + _quiet())


def delete_link(index: int) -> None:
    """Delete an interface. Raises OSError."""
    _change(RTM_DELLINK, 0, LinkMessage, {"index": index})


def delete_links_of(group: int) -> None:
    """Delete every interface of a group. Raises OSError, ENODEV where there is none."""
    _change(RTM_DELLINK, 0, LinkMessage, {}, [("IFLA_GROUP", group)])


def mtu_of(index: int) -> int:
    """The MTU of an interface, in bytes. Raises OSError."""
    return int(_ask(RTM_GETLINK, RTM_NEWLINK, LinkMessage, {"index": index}).get("mtu") or 0)


# ---------------------------------------------------------------------------------- addresses


def addresses() -> list[tuple[int, Address]]:
    """The addresses of this machine, each behind the index of its interface. Raises OSError."""
    found = []
    for message in rtnetlink.dump(RTM_GETADDR, RTM_NEWADDR, _written(AddressMessage, {})):
        entry = _read(AddressMessage, message)
        text = entry.get("local") or entry.get("address")
        if text:
            found.append((int(entry["index"]), ip_address(text)))
    return found


def set_address(index: int, address: Address, present: bool) -> None:
    """Give an interface a host address, which it may have already, or take it away. Raises OSError."""
    kind, flags = (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) if present else (RTM_DELADDR, 0)
    fields = {"family": _family(address), "prefixlen": address.max_prefixlen, "index": index}
    _change(kind, flags, AddressMessage, fields, [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address))])


# --------------------------------------------------------------------------------------- ways


def way_to(destination: Address, mark: int, flags: int = 0) -> tuple[Address | None, int, int]:
    """How datagrams with this fwmark leave for an address: from where, by which link, the MTU of the route.

    The MTU is 0 where the route has none. With RTM_F_FIB_MATCH it is that of the route as it was made.
    Raises OSError: there is no route.
    """
    fields = {"family": _family(destination), "dst_len": destination.max_prefixlen, "flags": flags}
    attributes = [("RTA_DST", str(destination)), *([("RTA_MARK", mark)] if mark else [])]
    answer = _ask(RTM_GETROUTE, RTM_NEWROUTE, RouteMessage, fields, attributes)
    source, metrics = answer.get("prefsrc"), answer.get("metrics")
    mtu = int(metrics.get("mtu") or 0) if metrics is not None else 0
    return ip_address(source) if source else None, int(answer.get("oif") or 0), mtu


# -------------------------------------------------------------------------------------- rules


def rules(family: int) -> list[Rule]:
    """The rules of one family that carry vpnd's mark. Raises OSError."""
    listed = rtnetlink.dump(RTM_GETRULE, RTM_NEWRULE, _written(RuleMessage, {"family": family}))
    found = (_read(RuleMessage, message) for message in listed)
    return [_rule(message, family) for message in found if message.get("protocol") == PROTOCOL]


def add_rule(rule: Rule) -> None:
    """Make this rule. Raises OSError, EEXIST for one that is there."""
    _change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, RuleMessage, *_of_rule(rule))


def delete_rule(rule: Rule) -> None:
    """Take this rule away. Raises OSError, ENOENT for one that is not there."""
    _change(RTM_DELRULE, 0, RuleMessage, *_of_rule(rule))


def _of_rule(rule: Rule) -> tuple[dict[str, int], list[tuple[str, Any]]]:
    fields = {
        "family": socket.AF_INET if rule.version == 4 else socket.AF_INET6,
        "src_len": rule.source.prefixlen if rule.source is not None else 0,
        "dst_len": rule.destination.prefixlen if rule.destination is not None else 0,
        "action": FR_ACT_TO_TBL,
        "flags": FIB_RULE_INVERT if rule.unless_mark is not None else 0,
    }
    ports = (("FRA_SPORT_RANGE", rule.source_ports), ("FRA_DPORT_RANGE", rule.destination_ports))
    values: list[tuple[str, Any]] = [
        ("FRA_TABLE", rule.table),
        ("FRA_PRIORITY", rule.priority),
        ("FRA_PROTOCOL", PROTOCOL),
        ("FRA_SRC", str(rule.source.network_address) if rule.source is not None else None),
        ("FRA_DST", str(rule.destination.network_address) if rule.destination is not None else None),
        ("FRA_FWMARK", rule.unless_mark),
        ("FRA_SUPPRESS_PREFIXLEN", 0 if rule.suppress_default else None),
        ("FRA_SUPPRESS_IFGROUP", rule.suppress_group),
        ("FRA_IP_PROTO", rule.protocol or None),
        *((name, f"{one[0]}:{one[1]}" if one != ANY_PORT else None) for name, one in ports),
    ]
    return fields, [(name, value) for name, value in values if value is not None]


def _rule(message: Any, family: int) -> Rule:
    source, destination = message.get("src"), message.get("dst")
    return Rule(
        version=4 if family == socket.AF_INET else 6,
        source=_network(source, message["src_len"], family) if message["src_len"] else None,
        destination=_network(destination, message["dst_len"], family) if message["dst_len"] else None,
        table=int(message.get("table") or 0),
        priority=int(message.get("priority") or 0),
        unless_mark=int(message.get("fwmark") or 0) if message["flags"] & FIB_RULE_INVERT else None,
        suppress_default=message.get("suppress_prefixlen") == 0,
        suppress_group=message.get("suppress_ifgroup"),
        protocol=int(message.get("ip_proto") or 0),
        source_ports=_ports(message.get("sport_range")),
        destination_ports=_ports(message.get("dport_range")),
    )


def _network(text: str | None, length: int, family: int) -> Network:
    if not text:
        return ALL_IPV4 if family == socket.AF_INET else ALL_IPV6
    return ip_network(f"{text}/{length}")


def _ports(text: str | None) -> Ports:
    if not text:
        return ANY_PORT
    first, _, last = text.partition(":")
    return int(first), int(last)


# ------------------------------------------------------------------------------------- inside


def _written(kind: type[Any], fields: Mapping[str, int], attributes: Iterable[tuple[str, Any]] = ()) -> bytes:
    """A message without its header, which `rtnetlink` makes."""
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    message.encode()
    written = bytes(message.data[NLMSG_HEADER.size :])
    _let_go(message)
    return written


def _read(kind: type[Any], body: bytes) -> Any:
    """What a message says; it begins with a header, of which nothing is read."""
    message = kind(NLMSG_HEADER.pack(NLMSG_HEADER.size + len(body), 0, 0, 0, 0) + body)
    message.decode()
    _let_go(message)
    return message


def _let_go(message: Any) -> None:
    """Break the circle in each message and attribute of pyroute2, which only the collector would free."""
    message.chain.clear()
    for slot in message["attrs"]:
        attribute = getattr(slot, "cell", slot)[1]
        if hasattr(attribute, "chain"):
            _let_go(attribute)


def _change(
    number: int,
    flags: int,
    kind: type[Any],
    fields: Mapping[str, int],
    attributes: Iterable[tuple[str, Any]] = (),
) -> None:
    rtnetlink.change(number, flags, _written(kind, fields, attributes))


def _ask(
    request: int,
    answer: int,
    kind: type[Any],
    fields: Mapping[str, int],
    attributes: Iterable[tuple[str, Any]] = (),
) -> Any:
    return _read(kind, rtnetlink.ask(request, answer, _written(kind, fields, attributes)))


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
