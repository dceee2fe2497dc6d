"""A failure as the protocols name it: a code and the facts; `vpnd.control` finds the words for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypedDict, Unpack

from vpnd.model.text import LONGEST_FACT, cut


class Code(Enum):
    """The stable names of what can be wrong with a tunnel."""

    P1_ENCRYPTION = "E-P1-ENC"
    P1_INTEGRITY = "E-P1-INTEG"
    P1_PRF = "E-P1-PRF"
    P1_DH = "E-P1-DH"
    P1_AUTH_METHOD = "E-P1-AUTHMETHOD"
    P1_PROPOSAL = "E-P1-PROPOSAL"
    ADDITION = "E-ADDITION"
    P2_ENCRYPTION = "E-P2-ENC"
    P2_INTEGRITY = "E-P2-INTEG"
    P2_ESN = "E-P2-ESN"
    P2_PROPOSAL = "E-P2-PROPOSAL"
    PFS = "E-PFS"
    PFS_OF_PEER = "W-PFS"
    PSK = "E-PSK"
    FLOOD = "E-FLOOD"
    IDENTITY = "E-ID"
    VERSION = "E-V1V2"
    MODE = "E-MODE"
    SILENT = "E-SILENT"
    PORT_CLOSED = "E-PORT"
    UNREACHABLE = "E-UNREACHABLE"
    UDP_4500 = "E-4500"
    TRAFFIC_SELECTORS = "E-TS"
    NARROWED = "E-NARROW"
    ONE_WAY = "E-ONEWAY"
    NO_FORWARD = "E-NOFORWARD"
    NO_REPLY = "E-NOREPLY"
    ESP_ICV = "E-ESP-ICV"
    HEALTH = "E-NQA"
    MAPPINGS_DOWN = "E-MAPPING"
    FLAPPING = "E-FLAP"
    MTU = "E-MTU"
    UNKNOWN_PEER = "E-UNKNOWN-PEER"
    SYNTAX = "E-SYNTAX"
    PEER_REFUSED = "E-PEER-REFUSED"
    PEER_DELETED = "E-PEER-DELETED"
    PEER_RESTARTED = "E-PEER-RESTARTED"
    PEER_DEAD = "E-DPD"
    PEER_BUSY = "E-BUSY"
    PEER_BEGINS = "E-ANY"
    PEER_ELSEWHERE = "E-PEER-ELSEWHERE"
    IDENTITY_TAKEN = "E-ID-TAKEN"
    LIFETIME = "E-LIFETIME"
    RESOLVE = "E-DNS"
    LOCAL_INTERFACE = "E-INTERFACE"
    LOCAL_ROUTE = "E-ROUTE"
    LOCAL_SOCKET = "E-SOCKET"
    LOCAL_ADDRESS = "E-ADDRESS"
    INTERNAL = "E-INTERNAL"
    DOWN_BY_OPERATOR = "I-DOWN"


class Known(TypedDict, total=False):
    """The facts that a diagnosis may have; what is to be branched on has a fact of its own, never a text."""

    exchange: object
    """Where: an exchange or a message of it."""
    notify: object
    """What the peer said, by its name in the registry."""
    theirs: object
    ours: object
    """The values that differ."""
    esn: object
    """Of a refused offer of ESP: on or off, where only one kind of sequence numbers was offered."""
    whose: object
    """Of two identities the one that is not as the other side has it: ours, theirs."""
    attribute: object
    """Of a proposal: the one that differs."""
    peer: object
    """An address."""
    port: object
    mapping: object
    sent: object
    received: object
    """Messages."""
    cause: object
    """Why the network does not carry it, by the name of `model.unreachable.Unreachable`; or why this machine
    does not forward: forwarding (it is off), firewall; or why there is no interface: taken (its name is)."""
    encapsulation: object
    """How ESP travels: udp, esp."""
    key: object
    """Of two identities that differ: proved, where the peer has shown that it has our key."""
    probed: object
    """Where the peer was asked (`tunnel.prober`): yes, or alone, of what it takes alone and not in a list."""
    seconds: object
    """How long it goes on, or from one time to the next."""
    count: object
    """How often, or of how many."""
    total: object
    """Of `count`, the number of all."""
    places: object
    """Mappings by their places in the tunnel's list, the first is 1."""
    reason: object
    """The code of the failure that is behind this one."""
    mtu: object
    """Bytes of a datagram that the path carries."""
    inner: object
    mss: object
    """Bytes of an inner packet, and of a TCP segment, that fit it."""
    errno: object
    """Why the kernel refused, by its name: EADDRINUSE."""
    owner: object
    """The other program that has the port, with its process id."""
    detail: object
    """Anything else, in words for people."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What happened, with the values that explain it.

    The facts are those of `Known`. Values are text that is safe to print: a peer's bytes are escaped before
    they come here, and no secret ever does.
    """

    code: Code
    facts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, code: Code, **facts: Unpack[Known]) -> Diagnosis:
        """`Diagnosis.of(Code.PSK, exchange="IKE_AUTH", ours="3f9a-77c1")`; facts of None are left out."""
        return cls(code, tuple((k, cut(str(v), LONGEST_FACT)) for k, v in facts.items() if v is not None))

    def fact(self, key: str) -> str | None:
        """The value of one fact, or None."""
        return dict(self.facts).get(key)
