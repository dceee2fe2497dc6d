"""What a negotiation yields: a pair of ESP SAs, with everything the datapath needs to carry packets."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.model.policy import DEFAULT_REPLAY_WINDOW, Lifetimes
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address, Selector


@dataclass(frozen=True, slots=True)
class Path:
    """The outer addresses and UDP ports between two gateways, as seen from this one."""

    local: Address
    local_port: int
    remote: Address
    remote_port: int

    def __str__(self) -> str:
        return (
            f"{endpoint_text(self.local, self.local_port)} - {endpoint_text(self.remote, self.remote_port)}"
        )


def endpoint_text(address: Address, port: int) -> str:
    """`192.0.2.1:4500` or `[2001:db8::1]:4500`."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class EspKeys:
    """The keys of one direction. With an AEAD cipher `integrity` is empty and `salt` begins each nonce."""

    encryption: Secret
    integrity: Secret
    salt: Secret


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A CHILD_SA (IKEv2) or IPsec SA pair (IKEv1), both directions.

    `mapping` is the index of its `ChildPolicy`. SPIs are 4 bytes as numbers; `spi_in` is the one we chose
    and receive on. `udp` says whether ESP travels in UDP along `path` (RFC 3948) or as IP protocol 50
    between the path's addresses. `initiator` says whether this side began the exchange that made
    it. `replay_window` is in packets. `pfs_of_peer`: it has a key exchange that only the peer wanted.
    """

    tunnel: str
    mapping: int
    spi_in: int
    spi_out: int
    suite: Suite
    keys_in: EspKeys
    keys_out: EspKeys
    ts_local: tuple[Selector, ...]
    ts_remote: tuple[Selector, ...]
    path: Path
    udp: bool
    lifetimes: Lifetimes
    initiator: bool
    replay_window: int = DEFAULT_REPLAY_WINDOW
    pfs_of_peer: bool = False
