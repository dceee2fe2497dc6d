"""NAT detection and traversal, the part both versions share (RFC 7296 section 2.23, RFC 3947)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vpnd.crypto.prf import hash_of
from vpnd.model.child import Path
from vpnd.model.policy import IKE_PORT, NAT_T_PORT
from vpnd.model.selectors import Address

KEEPALIVE_INTERVAL = 20.0
"""Seconds between NAT-keepalives of the side behind the NAT (RFC 3948 section 4)."""


@dataclass(frozen=True, slots=True)
class Nat:
    """What NAT detection found: this side is behind a NAT, the peer is, or UDP is forced by either."""

    ours: bool = False
    theirs: bool = False

    @property
    def found(self) -> bool:
        """Whether ESP has to travel in UDP."""
        return self.ours or self.theirs

    @property
    def at(self) -> str | None:
        """Whose side: here, there, both; None: neither."""
        if self.ours and self.theirs:
            return "both"
        return "here" if self.ours else "there" if self.theirs else None


NO_NAT = Nat()


def detection_hash(hash_word: str, spi_i: bytes, spi_r: bytes, address: Address, port: int) -> bytes:
    """HASH(SPIi | SPIr | IP | Port): `sha1` in IKEv2, the negotiated hash in IKEv1."""
    return hash_of(hash_word, spi_i, spi_r, address.packed, port.to_bytes(2, "big"))


def detect(
    hash_word: str,
    spi_i: bytes,
    spi_r: bytes,
    path: Path,
    sources: Iterable[bytes],
    destinations: Iterable[bytes],
) -> Nat:
    """Compare the peer's hashes with the addresses and ports that we see.

    `sources` are the peer's claims of its own address, one of which must fit where the message came from;
    `destinations` its claims of ours. Without either list there is no NAT traversal.
    """
    sources, destinations = tuple(sources), tuple(destinations)
    if not sources or not destinations:
        return NO_NAT
    theirs = detection_hash(hash_word, spi_i, spi_r, path.remote, path.remote_port)
    ours = detection_hash(hash_word, spi_i, spi_r, path.local, path.local_port)
    return Nat(
        ours=not any(hmac.compare_digest(claim, ours) for claim in destinations),
        theirs=not any(hmac.compare_digest(claim, theirs) for claim in sources),
    )


def floated(path: Path) -> Path:
    """The same two gateways, on the port where IKE and ESP share UDP (RFC 3947 section 4).

    A remote port that is not 500 is a NAT's mapping of 500: the one for 4500 is not known yet, and 4500
    itself is the only port to try.
    """
    if path.local_port == NAT_T_PORT:
        return path
    return replace(path, local_port=NAT_T_PORT, remote_port=NAT_T_PORT)


def follows(nat: Nat, here: Path, there: Path) -> bool:
    """Whether an authentic, new packet from `there` moves the peer, which was `here`: IKE and ESP alike.

    Only a peer behind a NAT moves (RFC 7296 section 2.23). Without one, an attacker who sees its packets
    could send a copy from elsewhere and have everything sent there.
    """
    return nat.theirs and there != here and there.local_port == here.local_port


def way_back(nat: Nat, here: Path, there: Path) -> Path:
    """Where the answer to a message from `there` goes that nothing shows to be new, of a peer at `here`.

    Back, so that a NAT which has forgotten its mapping lets it in; it moves nobody. An answer to another
    address needs a NAT there.
    """
    return there if nat.theirs or there.remote == here.remote else here


def proved_from(nat: Nat, here: Path, there: Path) -> Path:
    """Where a peer is that was `here` with its first message, and whose proof came from `there`.

    It may have changed to port 4500 meanwhile; its address is another only behind a NAT.
    """
    if nat.theirs or there.remote == here.remote:
        return there
    return floated(here) if there.local_port == NAT_T_PORT else here


def initial_path(local: Address, remote: Address) -> Path:
    """Where an initiator begins: port 500 on both sides."""
    return Path(local, IKE_PORT, remote, IKE_PORT)
