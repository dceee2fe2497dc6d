"""What to tell the operator: what silence, a peer's error or a mismatch means, with both sides' values."""

from __future__ import annotations

from vpnd.ike.unanswered import unanswered as silence
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import describe_all
from vpnd.model.selectors import Selector
from vpnd.wire.iana import Notify1, name_of

QUICK_MODE_ERRORS: dict[int, Code] = {
    Notify1.NO_PROPOSAL_CHOSEN: Code.P2_PROPOSAL,
    Notify1.INVALID_ID_INFORMATION: Code.TRAFFIC_SELECTORS,
    Notify1.INVALID_KEY_INFORMATION: Code.PFS,
    Notify1.ATTRIBUTES_NOT_SUPPORTED: Code.P2_PROPOSAL,
    Notify1.BAD_PROPOSAL_SYNTAX: Code.P2_PROPOSAL,
    Notify1.INVALID_PROTOCOL_ID: Code.P2_PROPOSAL,
    Notify1.INVALID_TRANSFORM_ID: Code.P2_PROPOSAL,
    Notify1.PAYLOAD_MALFORMED: Code.PEER_REFUSED,
    Notify1.INVALID_PAYLOAD_TYPE: Code.PEER_REFUSED,
    Notify1.INVALID_HASH_INFORMATION: Code.PEER_REFUSED,
    Notify1.SITUATION_NOT_SUPPORTED: Code.PEER_REFUSED,
    Notify1.DOI_NOT_SUPPORTED: Code.PEER_REFUSED,
    Notify1.UNEQUAL_PAYLOAD_LENGTHS: Code.PEER_REFUSED,
}
"""The errors that can be about a quick mode; what else a peer reports ends none."""

MAPPINGS_SHOWN = 10
"""Of a tunnel with many: enough to see the pattern."""


def unanswered(sa: IsakmpSa, sent: int, received: int) -> Diagnosis:
    """What silence means, by how far the attempt has come.

    In main mode the peer answers two messages before the key matters: silence after the third is the sign
    of another key, or of a port 4500 that does not get through.
    """
    facts: Known = {"sent": sent, "received": received}
    if not sa.has_keys:
        return silence(sa, Code.SILENT, facts | {"exchange": f"{sa.mode.value} mode"})
    code = Code.UDP_4500 if sa.nat.found else Code.PSK
    proof: Known = {"ours": sa.policy.key_fingerprints, "exchange": "main mode message 5"}
    return silence(sa, code, facts | proof)


def of_phase1_error(sa: IsakmpSa, notify: int, authentic: bool) -> Diagnosis:
    """The peer's error notify in phase 1. `authentic`: it came protected, so the keys are the same.

    An initiator that has no keys has proved nothing yet, so that its key cannot be what was refused.
    """
    policy = sa.policy
    name = name_of(Notify1, notify)
    facts: Known = {"notify": name, "peer": sa.path.remote, "exchange": f"{sa.mode.value} mode"}
    identity = notify in (Notify1.INVALID_ID_INFORMATION, Notify1.AUTHENTICATION_FAILED)
    unproved = sa.initiator and not sa.has_keys
    if notify == Notify1.INVALID_ID_INFORMATION or (identity and (authentic or unproved)):
        return Diagnosis.of(Code.IDENTITY, **(facts | {"ours": policy.local_id.describe(), "whose": "ours"}))
    if authentic:
        return Diagnosis.of(Code.PEER_REFUSED, **facts)
    if sa.has_keys or notify in (Notify1.AUTHENTICATION_FAILED, Notify1.INVALID_HASH_INFORMATION):
        return Diagnosis.of(Code.PSK, **(facts | {"ours": policy.key_fingerprints}))
    if notify == Notify1.NO_PROPOSAL_CHOSEN:
        return Diagnosis.of(Code.P1_PROPOSAL, **(facts | {"ours": describe_all(policy.proposals)}))
    return Diagnosis.of(Code.PEER_REFUSED, **facts)


def of_phase1_delete(sa: IsakmpSa, authentic: bool) -> Diagnosis:
    """The peer's DELETE in answer to our proof. `authentic`: its keys are ours, so the identity is left."""
    facts: Known = {"notify": "DELETE", "peer": sa.path.remote, "exchange": f"{sa.mode.value} mode"}
    if authentic:
        return Diagnosis.of(
            Code.IDENTITY, **(facts | {"ours": sa.policy.local_id.describe(), "whose": "ours"})
        )
    if sa.has_keys:
        return Diagnosis.of(Code.PSK, **(facts | {"ours": sa.policy.key_fingerprints}))
    return Diagnosis.of(Code.PEER_REFUSED, **facts)


def of_quick_mode_error(notify: int, policy: ChildPolicy) -> Diagnosis | None:
    """The peer's error notify while a quick mode of ours is under way; None if it cannot be about that."""
    code = QUICK_MODE_ERRORS.get(notify)
    if code is None:
        return None
    name = name_of(Notify1, notify)
    if code is Code.PFS:
        ours = ", ".join(map(str, policy.pfs)) or "off"
        return Diagnosis.of(
            code, notify=name, theirs="another group", ours=ours, mapping=policy, exchange="quick mode"
        )
    ours = str(policy) if code is Code.TRAFFIC_SELECTORS else describe_all(policy.proposals)
    return Diagnosis.of(code, notify=name, ours=ours, mapping=policy, exchange="quick mode")


def of_selectors(sa: IsakmpSa, ranges: tuple[Selector, ...], policy: ChildPolicy | None = None) -> Diagnosis:
    """Ranges (ours first) that fit no mapping of the tunnel, or not `policy`."""
    mappings = [policy] if policy else sa.policy.children
    return Diagnosis.of(
        Code.TRAFFIC_SELECTORS,
        theirs=" - ".join(map(str, ranges)),
        ours=", ".join(map(str, mappings[:MAPPINGS_SHOWN])),
        peer=sa.path.remote,
        exchange="quick mode",
    )
