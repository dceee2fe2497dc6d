"""Failures because the two sides are configured differently: both values, and the key to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vpnd.control.explanation import Explanation, Facts
from vpnd.control.products import product_words
from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity


def _quoted(words: str) -> str:
    """Words as TOML has them: numbers bare, text quoted, several as a list."""
    each = [w if w.isdecimal() else f'"{w}"' for w in words.split(", ")]
    return each[0] if len(each) == 1 else "[" + ", ".join(each) + "]"


# ---------------------------------------------------------------------------------- proposals


def attribute(sa: str, what: str, key: str) -> Callable[[Facts], Explanation]:
    """A proposal that differs in one attribute, set by one key of the configuration."""

    def explained(facts: Facts) -> Explanation:
        theirs, ours = facts["theirs"], facts["ours"]
        both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
        change = _other_value(key, theirs, ours) + product_words(facts)
        return Explanation(
            facts.code,
            f"{facts.mapping()}the {what} of the {sa} differs{both}",
            f"it has {theirs}" if theirs else facts.notify,
            f"{key}: {ours}" if ours else None,
            change=change,
            try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
        )

    return explained


def _other_value(key: str, theirs: str | None, ours: str | None) -> str:
    """What to set `key` to: of the peer's values those that vpnd has and that are not set already."""
    if not theirs or not ours:
        return f"compare {key} with the peer's configuration" + (f"; ours is {ours}" if ours else "")
    new = [word for word in theirs.split(", ") if word in _WORDS[key] and word not in ours.split(", ")]
    if not new:
        return f"have the peer offer {ours}: vpnd has nothing else that it offers"
    tested = SM_TESTED if _SM.intersection(new) else ""
    value = _quoted(", ".join(new))
    return f"set {key} = {value} here if you want the peer's, or have the peer offer {ours}{tested}"


_SM = frozenset({"sm4", "sm3"})
SM_TESTED = (
    "; SM4 and SM3 were tested between two vpnd alone, and have no agreed numbers: see sm_numbers in the"
    " documentation of the configuration"
)
"""What is known of the ciphers that no registry has."""


_GROUP_WORDS = frozenset(map(str, GROUPS))
_WORDS: Mapping[str, frozenset[str]] = {
    "ike.encryption": frozenset(ENCRYPTIONS),
    "ike.integrity": frozenset(INTEGRITIES),
    "ike.dh_group": _GROUP_WORDS,
    "ipsec.encryption": frozenset(ENCRYPTIONS),
    "ipsec.integrity": frozenset(INTEGRITIES),
}
"""The values of each key that can be set."""


def prf(facts: Facts) -> Explanation:
    """In IKEv2 the PRF is negotiated apart from the integrity algorithm, whose key sets it here."""
    theirs, ours = facts["theirs"], facts["ours"]
    both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
    return Explanation(
        facts.code,
        f"the PRF of the IKE SA differs{both}",
        f"it has {theirs}" if theirs else facts.notify,
        f"ike.integrity: {ours}" if ours else None,
        change=f"have the peer use the PRF {ours or 'of ike.integrity'}, which is that of ike.integrity here",
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )


WIDER = "the peer is asked for what is not configured, too"


def proposal(
    sa: str, keys: str, also: tuple[str, ...], in_ikev2: tuple[str, ...] = ()
) -> Callable[[Facts], Explanation]:
    """A peer that refused all of ours and did not say why. `in_ikev2`: what else it may be there alone."""

    def explained(facts: Facts) -> Explanation:
        ours, theirs = facts["ours"], facts["theirs"]
        if facts["probed"] == "alone":
            return _alone(facts, sa, keys)
        sides = f": the peer has {theirs}, we have {ours}" if theirs and ours else f": {ours}" if ours else ""
        wider = (
            ()
            if theirs or facts.mapping() or facts.about.asks_for_all
            else (f'diagnose = "all" in [tunnels.{facts.tunnel}]: {WIDER}',)
        )
        return Explanation(
            facts.code,
            f"{facts.mapping()}nothing that protects the {sa} is acceptable to both sides{sides}",
            f"it has {theirs}" if theirs else facts.notify,
            ours,
            also_possible=(
                *_other_esn(facts),
                *also,
                *(in_ikev2 if facts.about.version != "ikev1" else ()),
            ),
            change=f"make {keys} the same at both ends; each takes a list in order of preference"
            + product_words(facts),
            try_=(
                f"vpnctl trace {facts.tunnel}",
                f"vpnctl peer-config {facts.tunnel} --for strongswan",
                *wider,
            ),
        )

    return explained


def _other_esn(facts: Facts) -> tuple[str, ...]:
    """Where one kind alone is offered, the peer may have the other."""
    ours = facts["esn"]
    return (
        (f'extended sequence numbers differ: they are {ours} here (ipsec.esn = "auto" is both)',)
        if ours
        else ()
    )


def _alone(facts: Facts, sa: str, keys: str) -> Explanation:
    """A peer that takes one combination of ours, but not in the list of all."""
    theirs = facts["theirs"]
    return Explanation(
        facts.code,
        f"the peer refuses our list for the {sa}, and takes {theirs} of it where that is offered alone",
        f"it takes {theirs}",
        facts["ours"],
        also_possible=("its list of algorithms is long, and it reads only the beginning of ours",),
        change=f"offer {theirs} alone: one value each for {keys}",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def addition(facts: Facts) -> Explanation:
    """A peer that insists on something of which no key of the configuration has anything."""
    theirs = facts["theirs"] or "something"
    return Explanation(
        facts.code,
        f"{facts.mapping()}the peer demands what vpnd does not have: {theirs}",
        f"it demands {theirs}",
        None,
        also_possible=("the peer wants a quantum-safe key exchange beside the usual one (RFC 9370)",),
        change="have the peer offer a proposal without it as well, or one whose list of it contains NONE"
        " (strongSwan: take ke1_... out of proposals and esp_proposals, or add ke1_none)",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def esn(facts: Facts) -> Explanation:
    """Sequence numbers of ESP that count to 2^64 on one side alone; vpnd has them with IKEv2."""
    theirs, ours = facts["theirs"], facts["ours"]
    both = f": they are {theirs} at the peer and {ours} here" if theirs and ours else ""
    change = "allow ESP without extended sequence numbers at the peer (strongSwan: noesn)"
    if facts.about.version == "ikev2":
        change = 'set ipsec.esn = "auto" here, or allow both kinds at the peer (strongSwan: esn-noesn)'
    return Explanation(
        facts.code,
        f"{facts.mapping()}extended sequence numbers (ESN) differ{both}",
        f"ESN {theirs}" if theirs else facts.notify,
        f"ESN {ours}" if ours else None,
        change=change,
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl trace {facts.tunnel}"),
    )


def pfs(facts: Facts) -> Explanation:
    theirs, ours = _pfs_word(facts["theirs"]), _pfs_word(facts["ours"])
    both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
    change = "set ipsec.pfs to the same at both ends"
    if ours not in (None, "off") and (theirs or "").startswith("off or"):
        change += ': ipsec.pfs = "disable" here, where the peer has none'
    others = set((theirs or "").split(", ")) - set((ours or "").split(", "))
    new = [word for word in (theirs or "").split(", ") if word in others & (_GROUP_WORDS | {"off"})]
    if new:
        value = '"disable"' if "off" in new else _quoted(", ".join(new))
        change = f"set ipsec.pfs = {value} here, or {'none' if ours == 'off' else ours or 'ours'} at the peer"
    return Explanation(
        facts.code,
        f"{facts.mapping()}perfect forward secrecy (PFS) differs{both}",
        f"PFS {theirs}" if theirs else facts.notify,
        f"ipsec.pfs: {'disable' if ours == 'off' else ours}" if ours else None,
        change=change + product_words(facts),
        try_=(f"vpnctl rekey {facts.tunnel} --child",),
    )


def pfs_of_peer(facts: Facts) -> Explanation:
    """No failure: the peer has got what it asked for, and both configurations could say so."""
    group = facts["theirs"]
    return Explanation(
        facts.code,
        f"{facts.mapping()}the peer wants perfect forward secrecy (PFS)"
        f"{f' with DH group {group}' if group else ''}, which is off here: it got it",
        f"PFS {group}" if group else "PFS",
        "ipsec.pfs: disable",
        change=f"nothing, or say the same at both ends: ipsec.pfs = {group or 'GROUP'} here, or no PFS there",
        try_=(f"vpnctl show {facts.tunnel}",),
    )


def _pfs_word(value: str | None) -> str | None:
    return "off" if value in ("none", "off", "0", "") else value


# -------------------------------------------------------------------------------- who it is


FINGERPRINT_THERE = (
    """at the peer: read -rs KEY; printf 'vpnd key fingerprint\\0%s' "$KEY" | sha256sum | cut -c1-8"""
)
"""The same fingerprint on a machine without vpnd, and without the key among the arguments of a program."""


def psk(facts: Facts) -> Explanation:
    """A peer that refuses says the same of a key and of an identity; who checks the proof itself knows."""
    fingerprint = facts["ours"]
    refused = (facts["notify"] or "").startswith("AUTHENTICATION_FAILED")
    if refused and facts["probed"] is not None:
        return _key_or_our_identity(facts)
    return Explanation(
        facts.code,
        f"the pre-shared keys{', or the identities,' if refused else ''} differ{facts.during()}",
        facts.notify,
        f"a key with the fingerprint {fingerprint}" if fingerprint else None,
        also_possible=(
            "the peer expects another identity than ours, or has another itself"
            + (f": {facts['detail']}" if facts["detail"] else ""),
            "a space, quotes or a line end counts as part of the key on one side",
        ),
        change="put the same key on both sides, and compare local_id and remote_id with the peer's"
        + product_words(facts),
        try_=(f"vpnctl psk fingerprint {facts.tunnel}", "vpnd check", FINGERPRINT_THERE),
    )


def _key_or_our_identity(facts: Facts) -> Explanation:
    """A peer that refuses also where it may be anybody: a wrong key and our identity have one answer."""
    fingerprint, said = facts["ours"], facts["detail"]
    return Explanation(
        facts.code,
        f"the pre-shared keys differ, or the peer expects another identity of us{facts.during()}",
        f"{facts.notify}, also where it was not asked who it is",
        f"a key with the fingerprint {fingerprint}" if fingerprint else None,
        also_possible=(
            "the peer expects another identity than ours" + (f": {said}" if said else ""),
            "a space, quotes or a line end counts as part of the key on one side",
        ),
        change="put the same key on both sides, or set ike.local_id to what the peer expects of us: it"
        " answers the same to both, and its log says which" + product_words(facts),
        try_=(f"vpnctl psk fingerprint {facts.tunnel}", "vpnd check", FINGERPRINT_THERE),
    )


def identity(facts: Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"]
    about_us = facts["whose"] == "ours"
    key = "local_id" if about_us else "remote_id"
    verb = "looks for" if about_us else "says it is"
    both = f": the peer {verb} {theirs}, we have {ours}" if theirs and ours else ""
    return Explanation(
        facts.code,
        f"the identities differ{both}",
        f"it {verb} {theirs}{_proved(facts)}" if theirs else facts.notify,
        f"ike.{key}: {ours}" if ours else None,
        also_possible=_instead_of_identity(facts, about_us),
        change=_other_identity(key, theirs, _is_of_a_mode(facts)) + product_words(facts),
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def _proved(facts: Facts) -> str:
    return ", and has proved that it has our key" if facts["key"] == "proved" else ""


def _is_of_a_mode(facts: Facts) -> bool:
    """Whether a peer that is configured for the other mode of IKEv1 says the same."""
    return facts["exchange"] in ("aggressive mode", "main mode") and facts["whose"] == "ours"


def _other_identity(key: str, theirs: str | None, or_mode: bool) -> str:
    """What to write for an identity as `Identity.describe` has it, or what to do about one without a word."""
    if theirs is None:
        keys = f"ike.{key} and ike.negotiation_mode" if or_mode else f"ike.{key}"
        return f"compare {keys} with the peer's configuration"
    text = theirs.rpartition(" (")[0]
    try:
        written = Identity.of(text).describe() == theirs
    except ValueError:
        written = False
    if written:
        return f'set ike.{key} = "{text}" here, or correct the identity at the peer'
    whose = "what the peer expects of us" if key == "local_id" else "the peer's identity"
    return (
        f"set {whose} to an IP address or an FQDN, and ike.{key} to the same: vpnd has no word for {theirs}"
    )


AGGRESSIVE_BY_HAND = (
    'the peer wants aggressive mode: set ike.negotiation_mode = "aggressive" to try it by hand; it shows our'
    " identity to anyone on the way"
)


def _instead_of_identity(facts: Facts, about_us: bool) -> tuple[str, ...]:
    if not about_us:
        return ("the peer is behind a NAT and gives its inner address",)
    if (facts["notify"] or "") == "DELETE":
        return ("the peer ends it for a reason of its own, which its log has",)
    if facts["exchange"] == "aggressive mode":
        return ("the peer is configured for main mode, or refuses aggressive mode",)
    if facts["exchange"] == "main mode" and not facts.about.of_any_address:
        return (AGGRESSIVE_BY_HAND,)
    return ()


def auth_method(facts: Facts) -> Explanation:
    theirs = facts["theirs"]
    return Explanation(
        facts.code,
        "the peer authenticates in another way than by pre-shared key" + (f": {theirs}" if theirs else ""),
        theirs or facts.notify,
        "a pre-shared key, which is all that vpnd does",
        change="set the peer to authenticate both sides with a pre-shared key (PSK)",
        try_=(f"vpnctl peer-config {facts.tunnel} --for strongswan",),
    )


def unknown_peer(facts: Facts) -> Explanation:
    """A machine that begins IKE; all that is known of it is where it comes from, and its version of IKE."""
    port = f" (UDP {facts['port']})" if facts["port"] else ""
    return Explanation(
        facts.code,
        f"a machine at {facts.peer}{port} begins {_version_word(facts['theirs'])}, and no tunnel has that"
        " address as its peer's",
        f"{facts['received']} first messages lately" if facts["received"] else None,
        f"the peer's address: {facts['ours']}" if facts["ours"] else None,
        also_possible=(
            "the peer is behind a NAT, and its outer address is not the configured one",
            "it is no peer: who is reached from everywhere is scanned, and there is nothing to do",
        ),
        change=f"if that is the peer, set {_peer_at(facts)}",
        try_=("vpnctl status", "vpnctl events"),
    )


def unknown_caller(facts: Facts) -> str:
    """Beside another failure: a machine that may be the peer, of which `facts` are."""
    return (
        f"a machine at {facts.peer} begins {_version_word(facts['theirs'])}, and no tunnel has that address"
        f" as its peer's: if it is the peer, set {_peer_at(facts)}"
    )


def _peer_at(facts: Facts) -> str:
    """What to set so that this machine is the tunnel's peer."""
    other = facts["theirs"] in ("ikev1", "ikev2") and facts.about.version not in (None, facts["theirs"])
    version = f', and ike.version = "{facts["theirs"]}"' if other else ""
    return f'{facts.peer_key} = "{facts["peer"] or "ADDRESS"}"{version}'


def _version_word(version: str | None) -> str:
    return {"ikev1": "IKEv1", "ikev2": "IKEv2"}.get(version or "", "IKE")


# ------------------------------------------------------------------------- version and mode


def version(facts: Facts) -> Explanation:
    ours = facts["ours"] or facts.about.version
    other = {"ikev1": "ikev2", "ikev2": "ikev1"}.get(ours or "")
    theirs = facts["theirs"] if facts["theirs"] in ("ikev1", "ikev2") else other
    change = "use one IKE version at both ends"
    if theirs is not None:
        change = f'set ike.version = "{theirs}" here, or {ours or "ours"} at the peer'
    both = f"the peer has {theirs or 'the other version'}, we have {ours or 'the other'}"
    lacking = ", ".join(facts.about.only_in_ikev2)
    if theirs == "ikev2" and facts.about.is_aggressive:
        change += "; then take ike.negotiation_mode out here, which is of IKEv1"
    elif theirs == "ikev1" and lacking:
        change += f"; then change what IKEv1 does not have: {lacking}"
    return Explanation(
        facts.code,
        f"the IKE versions differ: {both}",
        facts.notify or theirs or "another version",
        f"ike.version: {ours}" if ours else None,
        change=change,
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


def mode(facts: Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"]
    both = f": the peer has {theirs}, we have {ours}" if theirs and ours else ""
    change = f'set ike.negotiation_mode = "{theirs}" here, or {ours or "ours"} at the peer'
    if theirs == "aggressive" and facts.about.of_any_address:
        change = "use main mode at the peer: of any address, it may not have aggressive mode"
    return Explanation(
        facts.code,
        f"the IKEv1 negotiation modes differ{both}",
        f"{theirs} mode" if theirs else facts.notify,
        f"ike.negotiation_mode: {ours}" if ours else None,
        also_possible=(
            "strongSwan refuses aggressive mode with a key, unless strongswan.conf has"
            " i_dont_care_about_security_and_use_aggressive_mode_psk = yes",
        ),
        change=change if theirs else "use one mode",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


# ---------------------------------------------------------------------------------- selectors


def selectors(facts: Facts) -> Explanation:
    theirs, ours = facts["theirs"], facts["ours"] or facts["mapping"]
    both = f": the peer refuses {ours}" if ours else ""
    if theirs:
        both = f": the peer has {theirs}, we have {ours}" if ours else f": the peer has {theirs}"
    return Explanation(
        facts.code,
        f"the ranges differ{both}",
        theirs or facts.notify,
        ours,
        also_possible=("IKEv1 needs the same ranges at both ends, mirrored: a smaller one is refused",)
        if facts.about.version != "ikev2"
        else (),
        change="make each mapping the mirror of one at the peer (our local is its remote),"
        " or use destination-route on both sides" + product_words(facts),
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )


def nowhere(local: str) -> str:
    """What else may be wrong with ranges that differ: ours is not here."""
    return f"our local range {local} is on no interface here: are local and remote the wrong way round?"


def turned_round(mapping: str) -> str:
    """What else may be wrong with a mapping whose local range others have behind the peer."""
    return (
        f"{mapping}: other mappings, which are up, have its local range behind the peer: are local and remote"
        " the wrong way round?"
    )


def mappings_down(facts: Facts) -> Explanation:
    """Of several mappings the peer has rules for some only."""
    some, every, rows = facts["count"], facts["total"], facts["places"]
    which = f"{some} of {every} mappings are down" if some and every else "some mappings are down"
    which += f": {'rows' if ', ' in rows else 'row'} {rows}" if rows else ""
    refused = facts["reason"] == Code.PEER_REFUSED.value
    return Explanation(
        facts.code,
        f"{which}; {'the peer refuses them' if refused else 'the peer has no such rule'}",
        facts["theirs"] or facts.notify,
        facts["ours"],
        also_possible=(
            "the peer allows fewer IPsec SAs than there are mappings here"
            if facts.about.version == "ikev1"
            else "the peer allows fewer CHILD_SAs than there are mappings here",
        ),
        change="add a rule for each of these at the peer (our local range is its remote one), or take them"
        " out here" + product_words(facts),
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )


def narrowed(facts: Facts) -> Explanation:
    if facts["detail"] is not None:
        return _offered_beside(facts)
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


def _offered_beside(facts: Facts) -> Explanation:
    """A peer that wants several mappings in one CHILD_SA, and none in an SA of its own."""
    return Explanation(
        facts.code,
        f"{facts.mapping()}the peer wants it in one CHILD_SA with another mapping, and refuses it in its own",
        facts.notify,
        facts["mapping"],
        change="make a child of its own for each pair of ranges at the peer (strongSwan: an entry each under"
        " children; libreswan: leftsubnets and rightsubnets), or here one mapping that holds all of them",
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )
