"""Values of every kind that the wire carries, for hypothesis."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from hypothesis import strategies as st

from vpnd.wire import ikev1, ikev2
from vpnd.wire.attributes import TV, Attribute
from vpnd.wire.header import Header
from vpnd.wire.iana import Payload1, Payload2

T = TypeVar("T")

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
short = st.binary(max_size=40)
spis16 = st.binary(max_size=16)

headers = st.builds(
    Header,
    spi_i=st.binary(min_size=8, max_size=8),
    spi_r=st.binary(min_size=8, max_size=8),
    next_payload=u8,
    version=st.sampled_from([0x10, 0x11, 0x1F, 0x20, 0x2F]),
    exchange=u8,
    flags=u8,
    message_id=u32,
    length=st.just(28),
)

attributes = st.builds(Attribute, type=st.integers(0, TV - 1), value=u16 | short)
"""A number up to 16 bits is TV, bytes are TLV; a longer number is not the value that it decodes to."""


def few(strategy: st.SearchStrategy[T], most: int = 4) -> st.SearchStrategy[tuple[T, ...]]:
    """A tuple of a few values."""
    return st.lists(strategy, max_size=most).map(tuple)


# --------------------------------------------------------------------------------------- IKEv2


def _is_key_length(attribute: Attribute) -> bool:
    return attribute.type == 14 and isinstance(attribute.value, int)


other_attributes = attributes.filter(lambda attribute: not _is_key_length(attribute))
transforms2 = st.builds(
    ikev2.Transform, type=u8, id=u16, key_length=st.none() | u16, attributes=few(other_attributes)
)
proposals2 = st.builds(
    ikev2.ProposalPart, number=u8, protocol=u8, spi=st.binary(max_size=255), transforms=few(transforms2)
)


@st.composite
def selectors(draw: st.DrawFn) -> ikev2.TrafficSelector:
    """A range of either family, or a selector of some other type."""
    length = draw(st.sampled_from([0, 4, 16]))
    if length == 0:
        other_type = draw(u8.filter(lambda number: number not in (7, 8)))
        return ikev2.TrafficSelector(other_type, draw(u8), 0, 0, draw(short), b"")
    addresses = st.binary(min_size=length, max_size=length)
    ts_type = 7 if length == 4 else 8
    return ikev2.TrafficSelector(ts_type, draw(u8), draw(u16), draw(u16), draw(addresses), draw(addresses))


def spi_tuples(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[bytes, ...]]:
    """SPIs of one length."""
    return lengths.flatmap(lambda length: few(st.binary(min_size=length, max_size=length)))


deletes2 = st.builds(ikev2.Delete, protocol=u8, spis=spi_tuples(st.integers(1, 255)))
fragments2 = st.tuples(u8, st.integers(1, 0xFFFF), st.integers(1, 0xFFFF), short).map(
    lambda it: ikev2.EncryptedFragment(it[0], min(it[1], it[2]), max(it[1], it[2]), it[3])
)

BY_KIND_2 = {
    ikev2.Sa: st.builds(ikev2.Sa, few(proposals2)),
    ikev2.KeyExchange: st.builds(ikev2.KeyExchange, group=u16, data=short),
    ikev2.IdI: st.builds(ikev2.IdI, type=u8, value=short),
    ikev2.IdR: st.builds(ikev2.IdR, type=u8, value=short),
    ikev2.Cert: st.builds(ikev2.Cert, encoding=u8, data=short),
    ikev2.CertReq: st.builds(ikev2.CertReq, encoding=u8, authority=short),
    ikev2.Auth: st.builds(ikev2.Auth, method=u8, data=short),
    ikev2.Nonce: st.builds(ikev2.Nonce, st.binary(min_size=16, max_size=256)),
    ikev2.Notify: st.builds(ikev2.Notify, type=u16, data=short, protocol=u8, spi=st.binary(max_size=255)),
    ikev2.Delete: deletes2,
    ikev2.VendorId: st.builds(ikev2.VendorId, short),
    ikev2.TsI: st.builds(ikev2.TsI, few(selectors())),
    ikev2.TsR: st.builds(ikev2.TsR, few(selectors())),
    ikev2.Configuration: st.builds(
        ikev2.Configuration,
        type=u8,
        attributes=few(st.builds(ikev2.ConfigurationAttribute, st.integers(0, 0x7FFF), short)),
    ),
    ikev2.Eap: st.builds(ikev2.Eap, code=u8, identifier=u8, data=short),
    ikev2.Unknown: st.builds(
        ikev2.Unknown,
        payload_type=st.integers(1, 255).filter(lambda number: number not in {*Payload2}),
        body=short,
        critical=st.just(False),
    ),
}
SEALED_2 = {
    ikev2.Encrypted: st.builds(ikev2.Encrypted, next_payload=u8, body=short),
    ikev2.EncryptedFragment: fragments2,
}

payloads2 = st.one_of(*BY_KIND_2.values())
chains2 = st.tuples(few(payloads2, 8), few(st.one_of(*SEALED_2.values()), 1)).map(
    lambda parts: parts[0] + parts[1]
)
"""Payloads as a message may hold them: SK or SKF only at the end."""

# --------------------------------------------------------------------------------------- IKEv1

transforms1 = st.builds(ikev1.TransformPart, number=u8, id=u8, attributes=few(attributes, 8))
proposals1 = st.builds(ikev1.ProposalPart, number=u8, protocol=u8, spi=spis16, transforms=few(transforms1))
BY_KIND_1 = {
    ikev1.Sa: st.builds(ikev1.Sa, doi=st.just(1), situation=st.just(1), proposals=few(proposals1)),
    ikev1.KeyExchange: st.builds(ikev1.KeyExchange, short),
    ikev1.Id: st.builds(ikev1.Id, type=u8, value=short, protocol=u8, port=u16),
    ikev1.Cert: st.builds(ikev1.Cert, encoding=u8, data=short),
    ikev1.CertReq: st.builds(ikev1.CertReq, encoding=u8, authority=short),
    ikev1.Hash: st.builds(ikev1.Hash, short),
    ikev1.Signature: st.builds(ikev1.Signature, short),
    ikev1.Nonce: st.builds(ikev1.Nonce, st.binary(min_size=8, max_size=256)),
    ikev1.Notify: st.builds(ikev1.Notify, type=u16, data=short, protocol=u8, spi=spis16, doi=u32),
    ikev1.Delete: st.builds(ikev1.Delete, protocol=u8, spis=spi_tuples(st.integers(1, 16)), doi=u32),
    ikev1.VendorId: st.builds(ikev1.VendorId, short),
    ikev1.Fragment: st.builds(
        ikev1.Fragment, id=u16, number=st.integers(1, 255), last=st.booleans(), data=short
    ),
    ikev1.NatD: st.builds(ikev1.NatD, data=short, draft=st.booleans()),
    ikev1.NatOa: st.one_of(
        st.builds(ikev1.NatOa, st.just(1), st.binary(min_size=4, max_size=4), draft=st.booleans()),
        st.builds(ikev1.NatOa, st.just(5), st.binary(min_size=16, max_size=16), draft=st.booleans()),
    ),
    ikev1.Unknown: st.builds(
        ikev1.Unknown,
        payload_type=st.integers(1, 255).filter(
            lambda number: number in (Payload1.PROPOSAL, Payload1.TRANSFORM) or number not in {*Payload1}
        ),
        body=short,
    ),
}

payloads1 = st.one_of(*BY_KIND_1.values())
chains1 = few(payloads1, 8)

# ------------------------------------------------------------------------------------------ IP

addresses4 = st.integers(0, 2**32 - 1).map(IPv4Address)
addresses6 = st.integers(0, 2**128 - 1).map(IPv6Address)
address_pairs = st.one_of(st.tuples(addresses4, addresses4), st.tuples(addresses6, addresses6))
