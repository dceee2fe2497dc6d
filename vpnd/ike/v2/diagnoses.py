"""What to tell the operator: mismatches and the peer's error notifies as diagnoses with both values."""

from __future__ import annotations

from vpnd.ike.v2.faults import NoProposalChosen
from vpnd.ike.v2.ladder import group_wanted, notify_name
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, PeerPolicy
from vpnd.model.proposals import NO_GROUP, Attribute, Chosen, Mismatch, describe_all
from vpnd.model.selectors import Selector
from vpnd.model.selectors import describe as describe_selectors
from vpnd.wire.iana import Notify2
from vpnd.wire.ikev2 import Notify

_PHASE_1 = {
    Attribute.ENCRYPTION: Code.P1_ENCRYPTION,
    Attribute.INTEGRITY: Code.P1_INTEGRITY,
    Attribute.PRF: Code.P1_PRF,
    Attribute.DH_GROUP: Code.P1_DH,
    Attribute.ADDITION: Code.ADDITION,
}
_PHASE_2 = {
    Attribute.ENCRYPTION: Code.P2_ENCRYPTION,
    Attribute.INTEGRITY: Code.P2_INTEGRITY,
    Attribute.DH_GROUP: Code.PFS,
    Attribute.ESN: Code.P2_ESN,
    Attribute.ADDITION: Code.ADDITION,
}
_CHILD_ERRORS: dict[int, Code] = {
    Notify2.NO_PROPOSAL_CHOSEN: Code.P2_PROPOSAL,
    Notify2.INVALID_KE_PAYLOAD: Code.PFS,
    Notify2.TS_UNACCEPTABLE: Code.TRAFFIC_SELECTORS,
    Notify2.SINGLE_PAIR_REQUIRED: Code.TRAFFIC_SELECTORS,
    Notify2.INVALID_SELECTORS: Code.TRAFFIC_SELECTORS,
    Notify2.TEMPORARY_FAILURE: Code.PEER_BUSY,
    Notify2.INVALID_SYNTAX: Code.SYNTAX,
}


def require(found: Chosen | Mismatch, exchange: str, child: ChildPolicy | None = None) -> Chosen:
    """What was chosen. Raises NoProposalChosen with `of_mismatch`."""
    if isinstance(found, Chosen):
        return found
    raise NoProposalChosen(diagnosis=of_mismatch(found, exchange, child))


def of_mismatch(mismatch: Mismatch, exchange: str, child: ChildPolicy | None = None) -> Diagnosis:
    """No common proposal, of ESP for `child`, else of IKE: the attribute that differs, with both values."""
    codes, otherwise = (_PHASE_2, Code.P2_PROPOSAL) if child else (_PHASE_1, Code.P1_PROPOSAL)
    return Diagnosis.of(
        codes.get(mismatch.attribute, otherwise),
        exchange=exchange,
        notify="NO_PROPOSAL_CHOSEN",
        theirs=_words(mismatch.attribute, mismatch.theirs),
        ours=_words(mismatch.attribute, mismatch.ours),
        mapping=child,
    )


def of_selectors(
    exchange: str,
    theirs: tuple[tuple[Selector, ...], tuple[Selector, ...]] | None,
    children: tuple[ChildPolicy, ...],
) -> Diagnosis:
    """Nothing in common in the selectors; `theirs` as (ours, theirs) sides, None where the peer gave none."""
    offered = None if theirs is None else f"{describe_selectors(theirs[0])} - {describe_selectors(theirs[1])}"
    return Diagnosis.of(
        Code.TRAFFIC_SELECTORS,
        exchange=exchange,
        notify="TS_UNACCEPTABLE",
        theirs=offered,
        ours="; ".join(map(str, children)),
    )


def of_init_error(notify: Notify, policy: PeerPolicy, exchange: str = "IKE_SA_INIT") -> Diagnosis:
    """The peer's error answer to IKE_SA_INIT, not authenticated there, or to a rekey of the IKE SA."""
    name = notify_name(notify)
    match notify.type:
        case Notify2.NO_PROPOSAL_CHOSEN:
            ours = describe_all(policy.proposals)
            return Diagnosis.of(Code.P1_PROPOSAL, exchange=exchange, notify=name, ours=ours)
        case Notify2.INVALID_KE_PAYLOAD:
            theirs = group_wanted(notify)
            groups = dict.fromkeys(group for p in policy.proposals for group in p.dh)
            ours = ", ".join(map(str, groups))
            return Diagnosis.of(Code.P1_DH, exchange=exchange, notify=name, theirs=theirs, ours=ours)
        case Notify2.INVALID_MAJOR_VERSION:
            return Diagnosis.of(Code.VERSION, exchange=exchange, notify=name, ours="ikev2")
        case Notify2.INVALID_SYNTAX | Notify2.UNSUPPORTED_CRITICAL_PAYLOAD:
            return Diagnosis.of(Code.SYNTAX, exchange=exchange, notify=name)
        case _:
            return Diagnosis.of(Code.PEER_REFUSED, exchange=exchange, notify=name)


def of_auth_error(notify: Notify, policy: PeerPolicy) -> Diagnosis:
    """The peer's error answer to IKE_AUTH; AUTHENTICATION_FAILED does not say which of key and identity."""
    name = notify_name(notify)
    if notify.type == Notify2.AUTHENTICATION_FAILED:
        asked = "no IDr" if policy.known_by_name else f"IDr {policy.remote_id.describe()}"
        return Diagnosis.of(
            Code.PSK,
            exchange="IKE_AUTH",
            notify=name,
            ours=policy.key_fingerprints,
            detail=f"we said IDi {policy.local_id.describe()}, asked for {asked}",
        )
    code = Code.SYNTAX if notify.type == Notify2.INVALID_SYNTAX else Code.PEER_REFUSED
    return Diagnosis.of(code, exchange="IKE_AUTH", notify=name)


def of_child_error(notify: Notify, exchange: str, child: ChildPolicy, pfs: bool) -> Diagnosis:
    """The peer's error answer to a CHILD_SA. `pfs`: the request carried a key exchange."""
    code, theirs, ours = _CHILD_ERRORS.get(notify.type, Code.PEER_REFUSED), None, None
    esn = None
    match notify.type:
        case Notify2.NO_PROPOSAL_CHOSEN:
            ours = describe_all(child.proposals)
            esn = _only_esn(child)
        case Notify2.INVALID_KE_PAYLOAD:
            group = group_wanted(notify)
            theirs = str(group or "none") if group is not None else None
            ours = ", ".join(map(str, child.pfs)) if pfs else "none"
        case Notify2.TS_UNACCEPTABLE | Notify2.SINGLE_PAIR_REQUIRED | Notify2.INVALID_SELECTORS:
            ours = str(child)
    name = notify_name(notify)
    return Diagnosis.of(
        code, exchange=exchange, notify=name, theirs=theirs, ours=ours, esn=esn, mapping=child
    )


def _only_esn(child: ChildPolicy) -> str | None:
    """`on` or `off` if extended sequence numbers are offered so alone; None if the peer may choose."""
    kinds = {flag for proposal in child.proposals for flag in proposal.esn}
    return ("on" if kinds == {True} else "off") if len(kinds) == 1 else None


def of_missing_ke(exchange: str, group: int, child: ChildPolicy) -> Diagnosis:
    """The peer's proposal has a DH group, but its request no KE payload."""
    return Diagnosis.of(Code.PFS, exchange=exchange, theirs="none", ours=group, mapping=child)


def _words(attribute: Attribute, words: tuple[str, ...]) -> str:
    if attribute is Attribute.DH_GROUP:
        words = tuple("none" if word == str(NO_GROUP) else word for word in words)
    return ", ".join(words) or "nothing"
