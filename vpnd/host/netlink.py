"""Links, routes and rules of this machine, by netlink (`rtnetlink`, `messages`).

What vpnd wants in the kernel is a set of values (`routes.py`). `Netlink.reconcile` compares it with what is
there and carries vpnd's mark, and makes the difference: so leftovers of a killed daemon are adopted or
removed, what an administrator flushed comes back, and doing it twice does nothing.

All calls block for about half a millisecond each; the daemon makes them in one thread of their own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vpnd.host import messages, rtnetlink
from vpnd.host.routes import ANYWHERE, LINK_GROUP, MAIN_TABLE, PROTOCOL, Route, Rule, Wanted
from vpnd.model.selectors import Address, Network

TRANSMIT_QUEUE = 10000
"""Ours: packets the kernel queues for the TUN; its 500 drop under one fast TCP stream."""

RTPROT_KERNEL = 2

PEERS_ASKED_FOR = 64
"""Ours: peers whose way out is looked up; a gateway with more of them reaches them by the same few links."""

_ABSENT = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)

T = TypeVar("T")


class NetlinkFailed(Exception):
    """The kernel refused; `str` says what, and why in the kernel's words. Never fatal to the daemon."""


@dataclass(frozen=True, slots=True)
class RouteTo:
    """How this machine reaches an address: from which of its own, by which link, of which MTU in bytes."""

    source: Address | None
    link: int
    mtu: int


class Netlink:
    """What is done by netlink, in the network namespace of the thread that asks for it."""

    # ------------------------------------------------------------------------------------ links

    def link_index(self, name: str) -> int | None:
        """The index of the interface of this name, or None."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def set_up(self, name: str, mtu: int, segments: int) -> None:
        """Give a TUN its MTU and queue, and set it up. Raises NetlinkFailed.

        A burst of TCP is at most `segments` packets.

        First its link-local address is switched off, since the kernel sets a link up before it reads the
        rest: router solicitations and MLD reports would meet no mapping.
        """
        index = self._require(name)
        _loosen_reverse_path(name)
        # A kernel without IPv6 knows no such setting, and is quiet anyhow.
        with contextlib.suppress(OSError):
            messages.set_quiet(index)
        ours = {"IFLA_GROUP": LINK_GROUP, "IFLA_TXQLEN": TRANSMIT_QUEUE, "IFLA_GSO_MAX_SEGS": segments}
        _attempt(f"set {name} up", lambda: messages.set_link(index, up=True, IFLA_MTU=mtu, **ours))

    def rename(self, name: str, to: str) -> None:
        """Give an interface another name, up as it is. Raises NetlinkFailed: before Linux 6.2, always."""
        index = self._require(name)
        _attempt(f"rename {name} to {to}", lambda: messages.set_link(index, IFLA_IFNAME=to))

    def set_links_up(self, names: frozenset[str]) -> frozenset[str]:
        """Set up those of these interfaces that are down: their names. Raises NetlinkFailed."""
        links = _attempt("list the links", rtnetlink.links)
        down = [link for link in links if link.name in names and not link.up]
        for link in down:
            _attempt("set a link up", partial(messages.set_link, link.index, up=True))
        return frozenset(link.name for link in down)

    def links(self) -> dict[int, tuple[str, bool]]:
        """Every interface by its index: its name, and whether packets pass. Raises NetlinkFailed."""
        return {one.index: (one.name, one.running) for one in _attempt("list the links", rtnetlink.links)}

    def set_mtu(self, name: str, mtu: int) -> None:
        """Change the MTU of an interface. Raises NetlinkFailed."""
        index = self._require(name)
        _attempt(f"set the MTU of {name}", lambda: messages.set_link(index, IFLA_MTU=mtu))

    def delete_link(self, name: str) -> None:
        """Delete an interface, if it is there. Raises NetlinkFailed."""
        index = self.link_index(name)
        if index is not None:
            _unless_absent(f"delete {name}", lambda: messages.delete_link(index))

    def delete_tunnels(self) -> None:
        """Delete every TUN that vpnd made. Raises NetlinkFailed."""
        _unless_absent("delete the interfaces", lambda: messages.delete_links_of(LINK_GROUP))

    def set_address(self, name: str, address: Address, present: bool) -> None:
        """Give an interface a host address, or take it away; it may be so already. Raises NetlinkFailed."""
        index = self._require(name)
        verb = "replace" if present else "del"
        change = partial(messages.set_address, index, address, present)
        _unless_absent(f"{verb} {address} on {name}", change)

    # ---------------------------------------------------------------------------------- queries

    def route_to(self, destination: Address, mark: int = 0) -> RouteTo | None:
        """How datagrams to `destination` leave this machine now; None: there is no route."""
        try:
            source, link, mtu = messages.way_to(destination, mark)
        except OSError:
            return None
        configured = _configured_mtu(destination, mark) if mtu else 0
        return RouteTo(source, link, configured or self._link_mtu(link))

    def local_addresses(self) -> frozenset[Address]:
        """The addresses of this machine."""
        return frozenset(address for _, address in self._addresses())

    def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        """The networks on the inner side of this machine, by its main table. Raises NetlinkFailed.

        A link is on the outer side if it has one of the addresses `own`, or if datagrams with this fwmark
        leave by it for a peer or for the default route. Of an outer link only that network counts as inner
        that holds one of `own`: a gateway with a single interface has its hosts there.
        """
        holders = {address: index for index, address in self._addresses()}
        asked = [*ANYWHERE.values(), *sorted(peers, key=str)[:PEERS_ASKED_FOR]]
        ways = [route.link for route in (self.route_to(peer, mark) for peer in asked) if route is not None]
        outer = {*ways, *(holders[address] for address in own if address in holders)}
        if not own & holders.keys():
            own = frozenset(address for address, link in holders.items() if link in outer)
        links = _attempt("list the links", rtnetlink.links)
        inner = {link.index for link in links if link.group != LINK_GROUP} - outer
        found: set[Network] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for link in inner:
                found.update(self._main_routes(family, link))
            for link in outer:
                attached = self._main_routes(family, link, RTPROT_KERNEL)
                found |= {n for n in attached if any(a in n for a in own if a.version == n.version)}
        return frozenset(found)

    def _addresses(self) -> list[tuple[int, Address]]:
        return _attempt("list the addresses", messages.addresses)

    def allow_peer_sources(self, peers: frozenset[Address], mark: int) -> list[str]:
        """Let what the peers send in, where it comes by a link whose reverse path is checked strictly.

        A tunnel whose routes they are in is where the kernel would send an answer to them (RFC 3704 section
        2.2). An address of this machine stands for all peers that come by its link. Returns the links whose
        check is loose from now on; in a sandbox none is, and sysctl.d has it.
        """
        asked = [peer for peer in sorted(peers, key=str) if peer.version == 4][:PEERS_ASKED_FOR]
        ways = {route.link for route in (self.route_to(peer, mark) for peer in asked) if route is not None}
        ways |= {index for index, address in self._addresses() if address in peers}
        names = [link.name for link in _attempt("list the links", rtnetlink.links) if link.index in ways]
        return [name for name in names if _is_strict(name) and _loosen_reverse_path(name)]

    def _main_routes(self, family: int, link: int, protocol: int = 0) -> list[Network]:
        """The destinations of the routes by this link alone that others made, or only one protocol."""
        listed = partial(rtnetlink.destinations, family, MAIN_TABLE, link, protocol)
        return [to for to, by in _attempt("list the routes", listed) if by != PROTOCOL]

    # -------------------------------------------------------------------------------- reconcile

    def present(self) -> Wanted:
        """The routes and rules in the kernel that carry vpnd's mark. Raises NetlinkFailed."""
        routes: set[Route] = set()
        rules: set[Rule] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            routes.update(_attempt("list the routes", partial(rtnetlink.routes, family)))
            rules.update(_attempt("list the rules", partial(messages.rules, family)))
        return Wanted(frozenset(routes), frozenset(rules))

    def reconcile(self, wanted: Wanted, present: Wanted | None = None) -> list[str]:
        """Make vpnd's routes and rules in the kernel equal to `wanted`; returns what could not be done.

        `present` is what is there, where the caller has just asked.
        Blackholes and rules come before routes, and go after them, so that no packet finds a gap. A route
        that only changes its interface is replaced in one step.
        """
        present = self.present() if present is None else present
        failures: list[str] = []
        missing, surplus = wanted.routes - present.routes, present.routes - wanted.routes
        replaced = {route.key for route in missing}
        failures += self.replace(sorted(missing, key=lambda r: r.device is not None))
        for rule in wanted.rules - present.rules:
            failures += self._try(f"add {rule}", partial(messages.add_rule, rule))
        for rule in present.rules - wanted.rules:
            failures += self._try(f"delete {rule}", partial(messages.delete_rule, rule))
        gone = sorted((r for r in surplus if r.key not in replaced), key=lambda r: r.device is None)
        refused = _attempt("delete routes", lambda: rtnetlink.delete(gone))
        return failures + [f"delete {r}: {_named(code)}" for r, code in refused if code not in _ABSENT]

    def replace(self, routes: Iterable[Route]) -> list[str]:
        """Make these routes, each in place of one with the same key; returns what could not be done."""
        refused = _attempt("add routes", lambda: rtnetlink.write(routes))
        return [f"add {route}: {_named(code)}" for route, code in refused]

    # ----------------------------------------------------------------------------------- inside

    def _require(self, name: str) -> int:
        index = self.link_index(name)
        if index is None:
            raise NetlinkFailed(f"there is no interface {name}")
        return index

    def _link_mtu(self, index: int) -> int:
        return (_attempt("ask for a link", lambda: messages.mtu_of(index)) if index else 0) or 1500

    def _try(self, what: str, call: Callable[[], object]) -> list[str]:
        try:
            call()
        except OSError as error:
            return [] if error.errno in (*_ABSENT, errno.EEXIST) else [f"{what}: {_words(error)}"]
        return []


def _configured_mtu(destination: Address, mark: int) -> int:
    """The MTU that the route itself has, 0 for none: not what the kernel took from an ICMP error."""
    try:
        return messages.way_to(destination, mark, messages.RTM_F_FIB_MATCH)[2]
    except OSError:
        return 0


def _attempt(what: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except OSError as error:
        raise NetlinkFailed(f"cannot {what}: {_words(error)}") from error


def _unless_absent(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        if error.errno not in _ABSENT:
            raise NetlinkFailed(f"cannot {what}: {_words(error)}") from error


def _words(error: OSError) -> str:
    return _named(error.errno) if error.errno else str(error)


def _named(code: int) -> str:
    return f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"


def _loosen_reverse_path(name: str) -> bool:
    """Replies may come through another tunnel than their requests left by (RFC 3704 section 2.4).

    A setting that one tunnel works without; where a sandbox forbids it, sysctl.d has it, and this is False.
    """
    try:
        Path("/proc/sys/net/ipv4/conf", name, "rp_filter").write_text("2")
    except OSError:
        return False
    return True


def _is_strict(name: str) -> bool:
    """Whether the greater of the setting of all interfaces and of this one is 1."""
    try:
        values = [int(Path("/proc/sys/net/ipv4/conf", of, "rp_filter").read_text()) for of in ("all", name)]
    except (OSError, ValueError):
        return False
    return max(values) == 1
