"""Every failure in words: what happened, what the peer said, what we have, what to change, what to try.

The words hold for both roles: `theirs` is what the peer offers or wants, however it was learnt, and where
the protocol hides the reason, the other possible ones are named. No fact is a secret, so no word is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vpnd.control.schema import ExplanationBody
from vpnd.model.diagnosis import Code, Diagnosis


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure for people; `change` and `try_` say what to do about it."""

    code: str
    what: str
    peer_said: str | None = None
    we_have: str | None = None
    also_possible: tuple[str, ...] = ()
    change: str | None = None
    try_: tuple[str, ...] = ()

    def body(self) -> ExplanationBody:
        """As the API says it."""
        return ExplanationBody(
            code=self.code,
            what=self.what,
            peer_said=self.peer_said,
            we_have=self.we_have,
            also_possible=list(self.also_possible),
            change=self.change,
            try_=list(self.try_),
        )


def explain(diagnosis: Diagnosis, tunnel: str = "NAME") -> Explanation:
    """The whole story of a failure; `tunnel` goes into the commands to try."""
    return _EXPLAIN[diagnosis.code](_Facts(diagnosis, tunnel))


def message(diagnosis: Diagnosis) -> str:
    """One line: what happened, and both values where they are known."""
    return explain(diagnosis).what


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts of one diagnosis, safe to print."""

    diagnosis: Diagnosis
    tunnel: str

    def __getitem__(self, key: str) -> str | None:
        value = self.diagnosis.fact(key)
        return None if value is None else "".join(c if c.isprintable() else "?" for c in value)

    @property
    def code(self) -> str:
        return self.diagnosis.code.value

    @property
    def notify(self) -> str | None:
        """The notify of this failure; who sent it depends on the role."""
        where = self["exchange"]
        if self["notify"] is None:
            return None
        return f"{self['notify']} in {where}" if where else self["notify"]

    @property
    def peer(self) -> str:
        return self["peer"] or "the peer"

    def during(self) -> str:
        """` (IKE_AUTH)`, or nothing."""
        return f" ({self['exchange']})" if self["exchange"] else ""

    def mapping(self) -> str:
        """`10.1.0.0/24 - 10.2.0.0/24: `, or nothing."""
        return f"{self['mapping']}: " if self["mapping"] else ""


def _quoted(words: str) -> str:
    """Words as TOML has them: numbers bare, text quoted, several as a list."""
    each = [w if w.isdecimal() else f'"{w}"' for w in words.split(", ")]
    return each[0] if len(each) == 1 else "[" + ", ".join(each) + "]"


# ---------------------------------------------------------------------------------- proposals


def _attribute(sa: str, what: str, key: str) -> Callable[[_Facts], Explanation]:
    """A proposal that differs in one attribute, set by one key of the configuration."""

    def explained(facts: _Facts) -> Explanation:
        theirs, ours = facts["theirs"], facts["ours"]
        both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
        if theirs and ours:
            change = (
                f"set {key} = {_quoted(theirs)} here if you want the peer's, or have the peer offer {ours}"
            )
        else:
            change = f"compare {key} with the peer's configuration" + (f"; ours is {ours}" if ours else "")
        return Explanation(
            facts.code,
            f"{facts.mapping()}the {what} of the {sa} differs{both}",
            f"it has {theirs}" if theirs else facts.notify,
            f"{key}: {ours}" if ours else None,
            change=change,
            try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
        )

    return explained


def _proposal(sa: str, keys: str, also: tuple[str, ...]) -> Callable[[_Facts], Explanation]:
    """A peer that refused all of ours and did not say why."""

    def explained(facts: _Facts) -> Explanation:
        ours, theirs = facts["ours"], facts["theirs"]
        sides = f": the peer has {theirs}, we have {ours}" if theirs and ours else f": {ours}" if ours else ""
        return Explanation(
            facts.code,
            f"{facts.mapping()}nothing that protects the {sa} is acceptable to both sides{sides}",
            f"it has {theirs}" if theirs else facts.notify,
            ours,
            also_possible=also,
            change=f"make {keys} the same at both ends; each takes a list in order of preference",
            try_=(f"vpnctl trace {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
        )

    return explained


def _pfs(facts: _Facts) -> Explanation:
    theirs, ours = _pfs_word(facts["theirs"]), _pfs_word(facts["ours"])
    both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
    change = "set ipsec.pfs to the same at both ends"
    if theirs is not None:
        value = '"disable"' if theirs == "off" else theirs
        change = f"set ipsec.pfs = {value} here, or {ours or 'ours'} at the peer"
    return Explanation(
        facts.code,
        f"{facts.mapping()}perfect forward secrecy (PFS) differs{both}",
        f"PFS {theirs}" if theirs else facts.notify,
        f"ipsec.pfs: {ours}" if ours else None,
        change=change,
        try_=(f"vpnctl rekey {facts.tunnel} --child",),
    )


def _pfs_word(value: str | None) -> str | None:
    return "off" if value in ("none", "off", "0", "") else value


# -------------------------------------------------------------------------------- who it is


def _psk(facts: _Facts) -> Explanation:
    fingerprint = facts["ours"]
    return Explanation(
        facts.code,
        f"the pre-shared keys differ{facts.during()}",
        facts.notify,
        f"a key with the fingerprint {fingerprint}" if fingerprint else None,
        also_possible=(
            "the peer expects another identity than ours, or has another itself"
            + (f": {facts['detail']}" if facts["detail"] else ""),
            "a space, quotes or a line end counts as part of the key on one side",
        ),
        change="put the same key on both sides, and compare local_id and remote_id with the peer's",
        try_=(f"vpnctl psk fingerprint {facts.tunnel}", "vpnd check"),
    )


def _identity(facts: _Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"]
    about_us = "IDr" in (facts["detail"] or "")
    key = "local_id" if about_us else "remote_id"
    verb = "looks for" if about_us else "says it is"
    both = f": the peer {verb} {theirs}, we have {ours}" if theirs and ours else ""
    name = theirs.split(" (")[0] if theirs else None
    return Explanation(
        facts.code,
        f"the identities differ{both}",
        f"it {verb} {theirs}" if theirs else facts.notify,
        f"ike.{key}: {ours}" if ours else None,
        also_possible=("the peer is behind a NAT and gives its inner address",) if not about_us else (),
        change=f'set ike.{key} = "{name}" here, or correct the identity at the peer'
        if name
        else f"compare ike.{key}",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def _auth_method(facts: _Facts) -> Explanation:
    theirs = facts["theirs"]
    return Explanation(
        facts.code,
        "the peer authenticates in another way than by pre-shared key" + (f": {theirs}" if theirs else ""),
        theirs or facts.notify,
        "a pre-shared key, which is all that vpnd does",
        change="set the peer to authenticate both sides with a pre-shared key (PSK)",
        try_=(f"vpnctl peer-config {facts.tunnel} --for strongswan",),
    )


def _unknown_peer(facts: _Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"no tunnel is configured for {facts.peer}",
        facts["theirs"],
        facts["ours"],
        also_possible=("the peer is behind a NAT, and its outer address is not the configured one",),
        change="give a customer gateway this address, or correct the peer's",
        try_=("vpnctl status",),
    )


# ------------------------------------------------------------------------- version and mode


def _version(facts: _Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"]
    other = {"ikev1": "ikev2", "ikev2": "ikev1"}.get(ours or "", "the other version")
    theirs = theirs if theirs and theirs.startswith("ikev") and theirs[4:] in ("1", "2") else other
    return Explanation(
        facts.code,
        f"the IKE versions differ: the peer has {theirs}, we have {ours or 'the other'}",
        facts.notify or theirs,
        f"ike.version: {ours}" if ours else None,
        change=f'set ike.version = "{theirs}" here, or {ours or "ours"} at the peer',
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def _mode(facts: _Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"]
    both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
    return Explanation(
        facts.code,
        f"the IKEv1 negotiation modes differ{both}",
        f"{theirs} mode" if theirs else facts.notify,
        f"ike.negotiation_mode: {ours}" if ours else None,
        also_possible=(
            "strongSwan refuses aggressive mode with a key, unless strongswan.conf has"
            " i_dont_care_about_security_and_use_aggressive_mode_psk = yes",
        ),
        change=f'set ike.negotiation_mode = "{theirs}" here, or {ours} at the peer'
        if theirs
        else "use one mode",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


# ----------------------------------------------------------------------------------- silence


def _silent(facts: _Facts) -> Explanation:
    sent = f": {facts['sent']} sent, {facts['received'] or 0} received" if facts["sent"] else ""
    return Explanation(
        facts.code,
        f"{facts.peer} does not answer{facts.during()}{sent}",
        "nothing",
        facts["detail"],
        also_possible=(
            "a firewall on the way drops UDP 500 or 4500",
            "the address is another machine's, or the machine is off",
            "the peer has no tunnel for our address, or another IKE version or mode, and keeps silent",
        ),
        change="allow UDP 500 and 4500 both ways, and compare both outer addresses with the peer's",
        try_=(f"vpnctl trace {facts.tunnel}", f"ping {facts['peer'] or 'PEER'}"),
    )


def _port_closed(facts: _Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"nothing listens for IKE at {facts.peer}: ICMP port unreachable",
        facts["detail"] or "port unreachable",
        change="start the IKE daemon at the peer, or correct its address here",
        try_=(f"vpnctl up {facts.tunnel}",),
    )


def _unreachable(facts: _Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"the network cannot reach {facts.peer}",
        facts.notify or facts["detail"] or "unreachable, says a router on the way or this machine",
        also_possible=("a firewall rejects the packets (administratively prohibited)",),
        change="check the route to the peer, and its address",
        try_=(f"ip route get {facts['peer'] or 'PEER'}",),
    )


def _udp_4500(facts: _Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"{facts.peer} answers on UDP 500, and then not on UDP 4500{facts.during()}",
        "nothing, after it had answered the first message",
        f"a key with the fingerprint {facts['ours']}" if facts["ours"] else facts["detail"],
        also_possible=(
            "a router on the way drops IP fragments, and the message is longer than a packet",
            "the pre-shared keys differ, and the peer keeps silent about it",
        ),
        change="allow UDP 4500 both ways on every firewall between the two",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


# ---------------------------------------------------------------------------------- selectors


def _selectors(facts: _Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"] or facts["mapping"]
    both = (
        f": the peer has {theirs}, we have {ours}" if theirs else f": the peer refuses {ours}" if ours else ""
    )
    return Explanation(
        facts.code,
        f"the ranges differ{both}",
        theirs or facts.notify,
        ours,
        also_possible=("IKEv1 needs the same ranges at both ends, mirrored: a smaller one is refused",),
        change="make each mapping the mirror of one at the peer (our local is its remote),"
        " or use destination-route on both sides",
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )


def _narrowed(facts: _Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"] or facts["mapping"]
    both = f": we asked for {ours}, the peer allows {theirs}" if theirs and ours else ""
    return Explanation(
        facts.code,
        f"the peer narrowed the ranges{both}; what is outside does not pass",
        theirs or facts.notify,
        ours,
        change="widen the ranges at the peer, or write the narrower ones here",
        try_=(f"vpnctl show {facts.tunnel}",),
    )


# ------------------------------------------------------------------------ the peer's own will


def _simple(
    what: str, change: str, also: tuple[str, ...] = (), tries: tuple[str, ...] = ("vpnctl trace {tunnel}",)
) -> Callable[[_Facts], Explanation]:
    """A failure without two values to compare; `{peer}` and `{tunnel}` are put in."""

    def filled(text: str, facts: _Facts) -> str:
        return text.replace("{peer}", facts.peer).replace("{tunnel}", facts.tunnel)

    def explained(facts: _Facts) -> Explanation:
        detail = f": {facts['detail']}" if facts["detail"] else ""
        notify = f" ({facts.notify})" if facts.notify else facts.during()
        return Explanation(
            facts.code,
            f"{facts.mapping()}{filled(what, facts)}{notify}{detail}",
            facts["theirs"] or facts.notify,
            facts["ours"],
            also_possible=also,
            change=filled(change, facts),
            try_=tuple(filled(text, facts) for text in tries),
        )

    return explained


def _local_socket(facts: _Facts) -> Explanation:
    detail = facts["detail"] or ""
    if "assign" in detail:
        change, tries = "set gateway.address to an address that this machine has", ("ip address",)
    elif "in use" in detail:
        change, tries = "end the other program that has UDP 500 or 4500", ("ss -lunp",)
    else:
        change, tries = "run vpnd with CAP_NET_BIND_SERVICE, CAP_NET_RAW and CAP_NET_ADMIN", ("ss -lunp",)
    return Explanation(
        facts.code,
        "a socket could not be opened on this machine" + (f": {detail}" if detail else ""),
        we_have=facts["ours"],
        change=change,
        try_=tries,
    )


_PHASE_1_ALSO = ("the peer has no tunnel for our address or identity, and says it this way",)
_PHASE_2_ALSO = ("PFS differs (ipsec.pfs)", "the peer's lifetimes or ranges do not allow it")

_EXPLAIN: dict[Code, Callable[[_Facts], Explanation]] = {
    Code.P1_ENCRYPTION: _attribute("IKE SA", "encryption", "ike.encryption"),
    Code.P1_INTEGRITY: _attribute("IKE SA", "integrity algorithm", "ike.integrity"),
    Code.P1_PRF: _attribute("IKE SA", "PRF", "ike.integrity"),
    Code.P1_DH: _attribute("IKE SA", "DH group", "ike.dh_group"),
    Code.P1_AUTH_METHOD: _auth_method,
    Code.P1_PROPOSAL: _proposal("IKE SA", "ike.encryption, ike.integrity and ike.dh_group", _PHASE_1_ALSO),
    Code.P2_ENCRYPTION: _attribute("ESP SA", "encryption", "ipsec.encryption"),
    Code.P2_INTEGRITY: _attribute("ESP SA", "integrity algorithm", "ipsec.integrity"),
    Code.P2_ESN: _simple(
        "the peer insists on other sequence numbers than we have (ESN)",
        "allow ESP without extended sequence numbers at the peer (strongSwan: noesn)",
    ),
    Code.P2_PROPOSAL: _proposal("ESP SA", "ipsec.encryption, ipsec.integrity and ipsec.pfs", _PHASE_2_ALSO),
    Code.PFS: _pfs,
    Code.PSK: _psk,
    Code.IDENTITY: _identity,
    Code.VERSION: _version,
    Code.MODE: _mode,
    Code.SILENT: _silent,
    Code.PORT_CLOSED: _port_closed,
    Code.UNREACHABLE: _unreachable,
    Code.UDP_4500: _udp_4500,
    Code.TRAFFIC_SELECTORS: _selectors,
    Code.NARROWED: _narrowed,
    Code.UNKNOWN_PEER: _unknown_peer,
    Code.SYNTAX: _simple(
        "one side could not read a message of the other",
        "keep the output of the command below, and look at the peer's log of the same moment",
        ("the pre-shared keys differ: IKEv1 then decrypts to nonsense", "a fault of one implementation"),
    ),
    Code.PEER_REFUSED: _simple(
        "{peer} refused",
        "look at the peer's log of this moment: it knows the reason and does not send it",
        ("the peer's limit of tunnels or SAs is reached", "the peer's policy does not allow this tunnel"),
    ),
    Code.PEER_DELETED: _simple(
        "{peer} closed the tunnel with DELETE",
        "nothing here; if it goes on, look at the peer's log",
        ("an operator took it down there", "it reached its lifetime or an idle limit there"),
        ("vpnctl up {tunnel}",),
    ),
    Code.PEER_DEAD: _simple(
        "{peer} stopped answering (dead peer detection)",
        'set dpd.action = "retry" to connect again by itself; check the network and the peer',
        ("the peer restarted", "the way there is cut, or a NAT forgot it"),
        ("vpnctl up {tunnel}",),
    ),
    Code.PEER_BUSY: _simple(
        "{peer} is busy with another exchange and asks to come back",
        "nothing: vpnd tries again by itself",
        tries=("vpnctl show {tunnel}",),
    ),
    Code.LIFETIME: _simple(
        "an SA reached the end of its lifetime before a successor was there",
        "check that the peer answers rekeying: its algorithms and PFS for a rekey may differ from the first",
        tries=("vpnctl rekey {tunnel}",),
    ),
    Code.RESOLVE: _simple(
        "the customer gateway's name cannot be resolved",
        "correct customer_gateways.NAME.address, or the name service of this machine",
        tries=("resolvectl query NAME",),
    ),
    Code.LOCAL_INTERFACE: _simple(
        "the tunnel's interface could not be set up on this machine",
        "run vpnd with CAP_NET_ADMIN and /dev/net/tun, and give the tunnel a free interface name",
        tries=("ip -d link",),
    ),
    Code.LOCAL_ROUTE: _simple(
        "the tunnel's routes could not be set up on this machine",
        "look for another route or rule for the same range",
        tries=("ip route show table all",),
    ),
    Code.LOCAL_SOCKET: _local_socket,
    Code.INTERNAL: _simple(
        "vpnd failed inside; other tunnels are not touched",
        "report it with the log of this moment",
        tries=("vpnctl trace {tunnel}", "vpnctl reset {tunnel}"),
    ),
    Code.DOWN_BY_OPERATOR: _simple(
        "the tunnel was taken down by command", "nothing", tries=("vpnctl up {tunnel}",)
    ),
}
