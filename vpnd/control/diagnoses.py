"""Every failure in words: what happened, what the peer said, what we have, what to change, what to try.

The words hold for both roles: `theirs` is what the peer offers or wants, however it was learnt, and where
the protocol hides the reason, the other possible ones are named. No fact is a secret, so no word is one.
"""

from __future__ import annotations

from collections.abc import Callable

from vpnd.control import failures, mismatches
from vpnd.control.explanation import UNKNOWN, About, Explanation, Facts
from vpnd.model.diagnosis import Code, Diagnosis


def explain(diagnosis: Diagnosis, tunnel: str = "NAME", about: About = UNKNOWN) -> Explanation:
    """The whole story of a failure; `tunnel` goes into the commands to try, `about` is what else is known."""
    return _EXPLAIN[diagnosis.code](Facts(diagnosis, tunnel, about))


def message(diagnosis: Diagnosis) -> str:
    """One line: what happened, and both values where they are known."""
    return explain(diagnosis).what


def keys_of(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The keys of the tunnel's table that a failure is about."""
    if diagnosis.code is Code.IDENTITY:
        ours = diagnosis.fact("whose") == "ours"
        mode = diagnosis.fact("theirs") is None and (diagnosis.fact("exchange") or "").endswith(" mode")
        mine = ("ike.local_id", "ike.negotiation_mode") if mode else ("ike.local_id",)
        return mine if ours else ("ike.remote_id",)
    if diagnosis.code is Code.P2_PROPOSAL and diagnosis.fact("exchange") == FIRST_CHILD:
        return tuple(key for key in _KEYS[diagnosis.code] if key != "ipsec.pfs")
    if diagnosis.code is Code.PSK and diagnosis.fact("probed") is not None:
        return ("pre_shared_key", "ike.local_id")
    if diagnosis.code is Code.LOCAL_ROUTE and diagnosis.fact("cause") == "into_tunnel":
        return _PEER
    if diagnosis.code is Code.FLAPPING:
        return (*_LIFETIMES, *keys_of(Diagnosis(_behind(diagnosis))))
    return _KEYS.get(diagnosis.code, ())


_IDENTITIES = ("ike.local_id", "ike.remote_id")
_RANGES = ("spd", "routes")
_LIFETIMES = ("ipsec.lifetime", "ike.lifetime")
_PEER = ("customer_gateway",)
_KEYS: dict[Code, tuple[str, ...]] = {
    Code.P1_ENCRYPTION: ("ike.encryption",),
    Code.P1_INTEGRITY: ("ike.integrity",),
    Code.P1_PRF: ("ike.integrity",),
    Code.P1_DH: ("ike.dh_group",),
    Code.P1_PROPOSAL: ("ike.encryption", "ike.integrity", "ike.dh_group"),
    Code.P2_ENCRYPTION: ("ipsec.encryption",),
    Code.P2_INTEGRITY: ("ipsec.integrity",),
    Code.P2_ESN: ("ipsec.esn",),
    Code.P2_PROPOSAL: ("ipsec.encryption", "ipsec.integrity", "ipsec.pfs"),
    Code.PFS: ("ipsec.pfs",),
    Code.PFS_OF_PEER: ("ipsec.pfs",),
    Code.PSK: ("pre_shared_key", *_IDENTITIES),
    Code.FLOOD: ("pre_shared_key", *_IDENTITIES),
    Code.VERSION: ("ike.version",),
    Code.MODE: ("ike.negotiation_mode",),
    Code.SILENT: _PEER,
    Code.PORT_CLOSED: _PEER,
    Code.UNREACHABLE: _PEER,
    Code.UDP_4500: _PEER,
    Code.RESOLVE: _PEER,
    Code.PEER_BEGINS: _PEER,
    Code.UNKNOWN_PEER: _PEER,
    Code.TRAFFIC_SELECTORS: _RANGES,
    Code.NARROWED: _RANGES,
    Code.PEER_DEAD: ("dpd.action",),
    Code.LOCAL_INTERFACE: ("interface",),
    Code.LOCAL_ROUTE: ("routes",),
    Code.MAPPINGS_DOWN: ("spd",),
    Code.MTU: ("mtu",),
    Code.HEALTH: ("health_check.local", "health_check.remote"),
    Code.ONE_WAY: ("ipsec.encapsulation",),
    Code.ESP_ICV: ("ipsec.sha256_96", "ipsec.integrity"),
}

_PHASE_1_ALSO = ("the peer has no tunnel for our address or identity, and says it this way",)
_ADDITION_WANTED = ("the peer demands an additional key exchange (RFC 9370), which vpnd does not have",)


def _behind(flapping: Diagnosis) -> Code:
    """What failed each time."""
    try:
        return Code(flapping.fact("reason"))
    except ValueError:
        return Code.LIFETIME


_AT_ITS_END = (Code.LIFETIME, Code.PEER_DELETED, Code.PEER_DEAD, Code.PEER_REFUSED, Code.PEER_RESTARTED)
"""What fails each time, and does not say why the SAs were not renewed."""


def _flapping(facts: Facts) -> Explanation:
    """A tunnel that ends each time when its SAs are to be renewed."""
    why = _behind(facts.diagnosis)
    behind = explain(Diagnosis(why, facts.diagnosis.facts), facts.tunnel, facts.about)
    seconds, count = facts["seconds"] or "some", facts["count"]
    times = f", {count} times in a row" if count else ""
    known = why not in _AT_ITS_END
    return Explanation(
        facts.code,
        f"the tunnel goes down every {seconds} s, when its SAs are to be renewed{times} ({why.value})",
        behind.peer_said,
        behind.what,
        also_possible=(
            "the lifetimes are the same at both ends, and both begin the rekey",
            "an idle or session limit at the peer ends it",
        ),
        change=behind.change
        if known and behind.change
        else "set the peer's lifetimes 10 % longer than ours, so that one end alone begins a rekey, and make"
        " PFS and the algorithms the same at both ends",
        try_=(f"vpnctl rekey {facts.tunnel}", f"vpnctl trace {facts.tunnel}"),
    )


FIRST_CHILD = "IKE_AUTH"
"""Makes the first CHILD_SA of IKEv2, without a key exchange of its own (RFC 7296 section 1.2)."""


def _phase_2_proposal(facts: Facts) -> Explanation:
    """A peer that refused all of ours for an ESP SA; what was not negotiated cannot differ."""
    keys, also = "ipsec.encryption and ipsec.integrity", ["the peer's lifetimes or ranges do not allow it"]
    if facts["exchange"] != FIRST_CHILD:
        keys = "ipsec.encryption, ipsec.integrity and ipsec.pfs"
        also.insert(0, "PFS differs (ipsec.pfs)")
    return mismatches.proposal("ESP SA", keys, tuple(also))(facts)


_EXPLAIN: dict[Code, Callable[[Facts], Explanation]] = {
    Code.P1_ENCRYPTION: mismatches.attribute("IKE SA", "encryption", "ike.encryption"),
    Code.P1_INTEGRITY: mismatches.attribute("IKE SA", "integrity algorithm", "ike.integrity"),
    Code.P1_PRF: mismatches.prf,
    Code.P1_DH: mismatches.attribute("IKE SA", "DH group", "ike.dh_group"),
    Code.P1_AUTH_METHOD: mismatches.auth_method,
    Code.P1_PROPOSAL: mismatches.proposal(
        "IKE SA", "ike.encryption, ike.integrity and ike.dh_group", _PHASE_1_ALSO, _ADDITION_WANTED
    ),
    Code.ADDITION: mismatches.addition,
    Code.P2_ENCRYPTION: mismatches.attribute("ESP SA", "encryption", "ipsec.encryption"),
    Code.P2_INTEGRITY: mismatches.attribute("ESP SA", "integrity algorithm", "ipsec.integrity"),
    Code.P2_ESN: mismatches.esn,
    Code.P2_PROPOSAL: _phase_2_proposal,
    Code.PFS: mismatches.pfs,
    Code.PFS_OF_PEER: mismatches.pfs_of_peer,
    Code.PSK: mismatches.psk,
    Code.FLOOD: failures.simple(
        "{peer} tries again and again with a wrong key or identity",
        "compare the pre-shared keys, as for E-PSK; if the peer is not yours, block its address",
        ("the peer's key was changed at one end only", "an attacker guesses keys from the peer's address"),
        ("vpnctl psk fingerprint {tunnel}", "vpnctl trace {tunnel}"),
    ),
    Code.IDENTITY: mismatches.identity,
    Code.VERSION: mismatches.version,
    Code.MODE: mismatches.mode,
    Code.SILENT: failures.silent,
    Code.PORT_CLOSED: failures.port_closed,
    Code.UNREACHABLE: failures.unreachable,
    Code.UDP_4500: failures.udp_4500,
    Code.TRAFFIC_SELECTORS: mismatches.selectors,
    Code.NARROWED: mismatches.narrowed,
    Code.UNKNOWN_PEER: mismatches.unknown_peer,
    Code.SYNTAX: failures.syntax,
    Code.PEER_REFUSED: failures.simple(
        "{peer} refused",
        "look at the peer's log of this moment: it knows the reason and does not send it",
        ("the peer's limit of tunnels or SAs is reached", "the peer's policy does not allow this tunnel"),
    ),
    Code.PEER_DELETED: failures.simple(
        "{peer} closed the tunnel with DELETE",
        "nothing here; if it goes on, look at the peer's log",
        ("an operator took it down there", "it reached its lifetime or an idle limit there"),
        ("vpnctl up {tunnel}",),
    ),
    Code.PEER_RESTARTED: failures.simple(
        "{peer} has restarted and forgotten the tunnel's SAs",
        "nothing here: the tunnel comes up again by itself; if it goes on, look why the peer restarts",
        ("its IKE daemon or the machine was restarted", "its configuration was loaded again"),
        ("vpnctl status",),
    ),
    Code.ONE_WAY: failures.one_way,
    Code.NO_FORWARD: failures.no_forward,
    Code.NO_REPLY: failures.no_reply,
    Code.ESP_ICV: failures.esp_icv,
    Code.HEALTH: failures.health,
    Code.MAPPINGS_DOWN: mismatches.mappings_down,
    Code.FLAPPING: _flapping,
    Code.MTU: failures.mtu,
    Code.PEER_DEAD: failures.peer_dead,
    Code.PEER_BUSY: failures.simple(
        "{peer} is busy with another exchange and asks to come back",
        "nothing: vpnd tries again by itself",
        tries=("vpnctl show {tunnel}",),
    ),
    Code.PEER_BEGINS: failures.simple(
        "the peer may have any address, so only it can begin",
        "start the tunnel at the peer, or give customer_gateways.NAME.address its address here",
        tries=("vpnctl peer-config {tunnel} --for strongswan",),
    ),
    Code.PEER_ELSEWHERE: failures.simple(
        "{peer} does not answer any more, and the peer has proved who it is from elsewhere",
        "nothing here: the tunnel goes on with the peer where it is now",
        ("its address has changed", "another machine has its identity and key, and the first is off"),
        ("vpnctl show {tunnel}",),
    ),
    Code.IDENTITY_TAKEN: failures.simple(
        "another machine at {peer} has the identity and the key of the peer that is up, and was refused",
        "give each machine an identity and a tunnel of its own",
        ("the peer begins a second IKE SA from another address while the first still works",),
        ("vpnctl show {tunnel}", "vpnctl trace {tunnel}"),
    ),
    Code.LIFETIME: failures.simple(
        "an SA reached the end of its lifetime before a successor was there",
        "check that the peer answers rekeying: its algorithms and PFS for a rekey may differ from the first",
        tries=("vpnctl rekey {tunnel}",),
    ),
    Code.RESOLVE: failures.simple(
        "the customer gateway's name cannot be resolved",
        "correct customer_gateways.NAME.address, or the name service of this machine",
        tries=("resolvectl query NAME",),
    ),
    Code.LOCAL_INTERFACE: failures.local_interface,
    Code.LOCAL_ROUTE: failures.local_route,
    Code.LOCAL_SOCKET: failures.local_socket,
    Code.LOCAL_ADDRESS: failures.local_address,
    Code.INTERNAL: failures.simple(
        "vpnd failed inside; other tunnels are not touched",
        "report it with the log of this moment",
        tries=("vpnctl trace {tunnel}", "vpnctl reset {tunnel}"),
    ),
    Code.DOWN_BY_OPERATOR: failures.simple(
        "the tunnel was taken down by command", "nothing", tries=("vpnctl up {tunnel}",)
    ),
}
