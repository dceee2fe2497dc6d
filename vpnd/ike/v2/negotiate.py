"""Agreeing on one CHILD_SA: what IKE_AUTH, CREATE_CHILD_SA and rekeying have in common."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.suites import as_cut
from vpnd.ike.outputs import Offered
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.children import Fate
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.faults import InvalidSyntax, TsUnacceptable
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.keys import derive_child_keys
from vpnd.ike.v2.proposals import (
    ESP_SPI_LENGTH,
    answer_sa,
    choose_by,
    choose_near,
    decode_sa,
    encode_sa,
    read_answer,
    without_dh,
)
from vpnd.ike.v2.selectors import choose_mapping, decode_selectors, encode_selectors, touched
from vpnd.model.child import ChildSa
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import Chosen, Mismatch, Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector, describe
from vpnd.wire.iana import Notify2, Protocol
from vpnd.wire.ikev2 import Notify, Sa, TsI, TsR

SMALLEST_SPI = 256


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides have agreed on for one CHILD_SA, but for the keys."""

    policy: ChildPolicy
    suite: Suite
    spi_in: int
    spi_out: int
    ts_local: tuple[Selector, ...]
    ts_remote: tuple[Selector, ...]
    left_out: bool = False
    """Whether the peer has offered more, which is possible in further CHILD_SAs (RFC 7296 section 2.9)."""
    missing: tuple[int, ...] = ()
    """The mappings of what was left out that have no SA."""

    @property
    def notifies(self) -> tuple[Notify, ...]:
        """What the answer says besides its SA and selectors."""
        return (Notify(Notify2.ADDITIONAL_TS_POSSIBLE),) if self.left_out else ()

    def sa(
        self, ike: IkeSa, nonce_i: bytes, nonce_r: bytes, shared: Secret | None, initiator: bool
    ) -> ChildSa:
        """The CHILD_SA with its keys; `initiator`: of the exchange that makes it (RFC 7296 section 2.17)."""
        of_initiator, of_responder = derive_child_keys(ike.keys, self.suite, nonce_i, nonce_r, shared)
        keys_out, keys_in = (of_initiator, of_responder) if initiator else (of_responder, of_initiator)
        return ChildSa(
            tunnel=ike.tunnel,
            mapping=self.policy.index,
            spi_in=self.spi_in,
            spi_out=self.spi_out,
            suite=as_cut(self.suite, self.policy.sha256_96),
            keys_in=keys_in,
            keys_out=keys_out,
            ts_local=self.ts_local,
            ts_remote=self.ts_remote,
            path=ike.path,
            udp=ike.peer.esp_in_udp,
            lifetimes=self.policy.lifetimes,
            initiator=initiator,
            replay_window=self.policy.replay_window,
            pfs_of_peer=bool(self.suite.dh) and not self.policy.pfs,
        )


class Offer:
    """Our offer of one CHILD_SA. It holds an inbound SPI until it is accepted or released."""

    def __init__(
        self,
        context: Context,
        policy: ChildPolicy,
        key_exchange: bool,
        selectors: tuple[tuple[Selector, ...], tuple[Selector, ...]] | None = None,
    ) -> None:
        """`selectors`: those of a rekeyed SA, else the whole mapping; no DH without `key_exchange`."""
        self.policy = policy
        self._context = context
        self._proposals = policy.proposals if key_exchange else without_dh(policy.proposals)
        self._local, self._remote = selectors or (
            (policy.ts_local,),
            (policy.ts_remote,),
        )
        self.spi_in = context.registry.new_esp_spi()

    def ask_for(self, group: int) -> None:
        """Offer a key exchange in this group alone, or none: NO_GROUP."""
        groups = (group,) if group else ()
        self._proposals = self.policy.with_groups(*groups).proposals

    def payloads(self) -> tuple[Sa, TsI, TsR]:
        spi = self.spi_in.to_bytes(ESP_SPI_LENGTH, "big")
        return (
            encode_sa(self._proposals, spi, self._context.sa.policy.numbers),
            TsI(encode_selectors(self._local)),
            TsR(encode_selectors(self._remote)),
        )

    def accept(self, exchange: str, sa: Sa, ts_i: TsI, ts_r: TsR) -> Agreed:
        """The peer's answer, within our offer. Raises NoProposalChosen, TsUnacceptable, InvalidSyntax."""
        answer = read_answer(sa, self._proposals, self._context.sa.policy.numbers)
        chosen = diagnoses.require(answer, exchange, self.policy)
        local, remote = decode_selectors(ts_i), decode_selectors(ts_r)
        if not _within(local, self._local) or not _within(remote, self._remote):
            diagnosis = diagnoses.of_selectors(exchange, (local, remote), (self.policy,))
            raise TsUnacceptable(diagnosis=diagnosis)
        if set(local) != set(self._local) or set(remote) != set(self._remote):
            self._context.story(f"the peer narrowed {self.policy} to {describe(local)} - {describe(remote)}")
        return Agreed(self.policy, chosen.suite, self.spi_in, spi_of(chosen), local, remote)

    def release(self) -> None:
        self._context.registry.release_esp_spi(self.spi_in)


def answer_offer(
    context: Context,
    exchange: str,
    sa: Sa,
    ts_i: TsI,
    ts_r: TsR,
    key_exchange: bool,
    group: int | None = None,
    mapping: int | None = None,
) -> tuple[Agreed, tuple[Sa, TsI, TsR]]:
    """A peer's offer, narrowed to one mapping, and the payloads that answer it.

    `group` is that of the peer's KE payload, preferred where the policy has it, so that no second round is
    needed. `mapping` is that of a rekeyed SA, preferred where the offer touches it: its successor must not
    leave it without an SA (RFC 7296 section 2.9.2). A new inbound SPI is taken. What else was offered is
    possible in further CHILD_SAs, and said to be. Raises TsUnacceptable, NoProposalChosen or InvalidSyntax,
    with nothing taken.
    """
    local, remote = decode_selectors(ts_r), decode_selectors(ts_i)
    children = context.sa.policy.children
    succeeded = tuple(child for child in children if child.index == mapping)
    up = {child.sa.mapping for child in context.children if child.fate is Fate.LIVE}
    mapped = None
    if local and remote:
        mapped = choose_mapping(succeeded, local, remote) or choose_mapping(children, local, remote, up)
    if mapped is None:
        diagnosis = diagnoses.of_selectors(exchange, (local, remote), children)
        raise TsUnacceptable(diagnosis=diagnosis)
    policy, ts_local, ts_remote = mapped
    numbers = context.sa.policy.numbers
    offered, acceptable = decode_sa(sa, numbers), policy.proposals
    if not key_exchange:
        offered, acceptable = without_dh(offered), without_dh(acceptable)
    found = choose_near(numbers, offered, acceptable, group)
    if isinstance(found, Mismatch) and key_exchange and not policy.pfs:
        # PFS that only the peer wants: an SA that is protected better than was asked for is not refused.
        groups = sorted(context.sa.groups_on_request(), key=lambda one: one != group)
        asked_for = choose_by(numbers, offered, policy.with_groups(*groups).proposals)
        found = asked_for if isinstance(asked_for, Chosen) else found
    chosen = diagnoses.require(found, exchange, policy)
    spi_out = spi_of(chosen)
    spi_in = context.registry.new_esp_spi()
    others = tuple(index for index in touched(children, local, remote) if index != policy.index)
    missing = tuple(index for index in others if index not in up)
    agreed = Agreed(policy, chosen.suite, spi_in, spi_out, ts_local, ts_remote, bool(others), missing)
    return agreed, (
        answer_sa(chosen, Protocol.ESP, spi_in.to_bytes(ESP_SPI_LENGTH, "big"), numbers),
        TsI(encode_selectors(ts_remote)),
        TsR(encode_selectors(ts_local)),
    )


def tell_offered(context: Context, agreed: Agreed) -> None:
    """A CHILD_SA of a peer's offer is agreed on: what else it has offered is begun from here."""
    if agreed.missing:
        context.emit(Offered(context.sa.tunnel, agreed.missing))


def spi_of(chosen: Chosen) -> int:
    """The peer's ESP SPI. Raises InvalidSyntax for one that no SA may have (RFC 4303 section 2.1)."""
    spi = int.from_bytes(chosen.spi, "big")
    if len(chosen.spi) != ESP_SPI_LENGTH or spi < SMALLEST_SPI:
        raise InvalidSyntax(detail=f"SPI {chosen.spi.hex() or 'missing'} in a proposal for ESP")
    return spi


def _within(part: tuple[Selector, ...], whole: tuple[Selector, ...]) -> bool:
    """Whether a peer narrowed what was offered, and not to nothing."""
    return bool(part) and all(any(offered.covers(s) for offered in whole) for s in part)
