"""What a peer may say in an IKEv2 exchange: payloads that are right, nearly right, misplaced or nonsense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.simulation.puppet import (
    DH,
    ENCR,
    IKE_SA,
    INTEG,
    NO_ESN,
    PRF,
    Puppet,
    esp_sa,
    subnet,
)
from vpnd.wire.iana import AuthMethod2, DhGroup, Exchange2, IdType, Notify2, Protocol
from vpnd.wire.ikev2 import (
    Auth,
    Cert,
    CertReq,
    Configuration,
    Delete,
    Eap,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    ProposalPart,
    Sa,
    TrafficSelector,
    Transform,
    TsI,
    TsR,
    Unknown,
    VendorId,
)

Line = Callable[[Puppet], Payload]
"""A payload that may depend on what the puppet knows, such as a valid AUTH."""

KNOWN_EXCHANGES = [int(kind) for kind in Exchange2]


def fixed(payload: Payload) -> Line:
    """A payload that is the same from either side."""
    return lambda puppet: payload


short_bytes = st.binary(max_size=40)
spi4 = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)).map(lambda n: n.to_bytes(4, "big"))
spis = st.one_of(st.just(b""), spi4, st.binary(min_size=8, max_size=8), short_bytes)

transforms = st.one_of(
    st.sampled_from([ENCR, PRF, INTEG, DH, NO_ESN]),
    st.builds(Transform, st.integers(0, 7), st.integers(0, 40), st.sampled_from([None, 0, 1, 127, 128, 256])),
)
proposals = st.builds(
    ProposalPart,
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, 4, 255]),
    spis,
    st.lists(transforms, max_size=6).map(tuple),
)
security_associations = st.one_of(
    st.just(IKE_SA),
    spi4.map(lambda spi: esp_sa(int.from_bytes(spi, "big"))),
    st.lists(proposals, max_size=3).map(lambda parts: Sa(tuple(parts))),
)
key_exchanges = st.builds(
    KeyExchange,
    st.sampled_from([0, DhGroup.MODP_2048, DhGroup.ECP_256, DhGroup.CURVE25519, 1025, 65535]),
    st.one_of(
        st.binary(min_size=32, max_size=32),
        st.just(bytes(32)),
        st.just(b"\x01" + bytes(31)),
        st.binary(max_size=64),
    ),
)
addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(max_size=16))
identities = st.tuples(
    st.sampled_from([0, IdType.IPV4_ADDR, IdType.FQDN, IdType.IPV6_ADDR, IdType.KEY_ID, 255]),
    st.one_of(st.just(bytes((192, 0, 2, 1))), st.just(bytes((192, 0, 2, 2))), st.binary(max_size=300)),
)
selectors = st.one_of(
    st.sampled_from([subnet(1), subnet(2), subnet(1, 1), subnet(2, 1)]),
    st.lists(
        st.builds(
            TrafficSelector,
            st.just(7),
            st.integers(0, 255),
            st.integers(0, 65535),
            st.integers(0, 65535),
            st.binary(min_size=4, max_size=4),
            st.binary(min_size=4, max_size=4),
        ),
        max_size=3,
    ).map(tuple),
)
notify_types = st.one_of(st.sampled_from([int(kind) for kind in Notify2]), st.integers(0, 65535))
notifies = st.builds(Notify, notify_types, short_bytes, st.sampled_from([0, 1, 2, 3, 255]), spis)
deletes = st.one_of(
    st.just(Delete(Protocol.IKE, ())),
    st.builds(Delete, st.just(Protocol.ESP), st.lists(spi4, max_size=5).map(tuple)),
    st.builds(Delete, st.just(Protocol.AH), st.lists(spi4, max_size=5).map(tuple)),
)

payload_values: st.SearchStrategy[Payload] = st.one_of(
    security_associations,
    key_exchanges,
    st.builds(Nonce, st.binary(min_size=16, max_size=64)),
    identities.map(lambda pair: IdI(*pair)),
    identities.map(lambda pair: IdR(*pair)),
    st.builds(Auth, st.one_of(st.sampled_from(AuthMethod2), st.integers(0, 255)), st.binary(max_size=64)),
    notifies,
    deletes,
    selectors.map(TsI),
    selectors.map(TsR),
    st.builds(VendorId, short_bytes),
    st.builds(Cert, st.integers(0, 255), short_bytes),
    st.builds(CertReq, st.integers(0, 255), short_bytes),
    st.builds(Eap, st.integers(0, 5), st.integers(0, 255), short_bytes),
    st.just(Configuration(1, ())),
    st.builds(Unknown, st.one_of(st.integers(1, 32), st.integers(54, 255)), short_bytes, st.booleans()),
)

lines: st.SearchStrategy[Line] = st.one_of(
    payload_values.map(fixed),
    st.sampled_from(
        [
            lambda puppet: puppet.identity,
            lambda puppet: puppet.auth_payload(),
            lambda puppet: Nonce(puppet.nonce),
            lambda puppet: KeyExchange(DhGroup.CURVE25519, puppet.public),
        ]
    ),
)


@dataclass(frozen=True)
class Saying:
    """One message of a peer: `sealed` with the IKE SA's keys, or in the clear."""

    exchange: int
    message_id: int
    response: bool
    sealed: bool
    lines: tuple[Line, ...]

    def data(self, puppet: Puppet) -> bytes:
        """The bytes that the puppet sends."""
        payloads = [line(puppet) for line in self.lines]
        if self.sealed:
            return puppet.seal(self.exchange, self.message_id, payloads, self.response)
        return puppet.clear(self.exchange, self.message_id, payloads, self.response)


def ordered_lines() -> st.SearchStrategy[tuple[Line, ...]]:
    """Payload lists: the right ones of an exchange with some left out, repeated or added; or any."""
    right: list[Line] = [
        fixed(IKE_SA),
        fixed(esp_sa(0x1234567)),
        lambda puppet: Nonce(puppet.nonce),
        lambda puppet: KeyExchange(DhGroup.CURVE25519, puppet.public),
        lambda puppet: puppet.identity,
        lambda puppet: puppet.auth_payload(),
        fixed(TsI(subnet(1))),
        fixed(TsR(subnet(2))),
        fixed(Notify(Notify2.REKEY_SA, b"", Protocol.ESP, b"\xc0\xff\xee\x01")),
    ]
    return st.one_of(
        st.lists(lines, max_size=8).map(tuple),
        st.tuples(st.lists(st.sampled_from(right), max_size=10), st.lists(lines, max_size=2)).map(
            lambda parts: (*parts[0], *parts[1])
        ),
    )


sayings = st.builds(
    Saying,
    st.one_of(st.sampled_from(KNOWN_EXCHANGES), st.integers(0, 255)),
    st.one_of(st.integers(0, 4), st.sampled_from([2**31, 2**32 - 1])),
    st.booleans(),
    st.booleans(),
    ordered_lines(),
)
"""A message from someone who may have the keys."""

clear_sayings = st.builds(
    Saying,
    st.one_of(st.sampled_from(KNOWN_EXCHANGES), st.integers(0, 255)),
    st.one_of(st.integers(0, 4), st.sampled_from([2**31, 2**32 - 1])),
    st.booleans(),
    st.just(False),
    ordered_lines(),
)
"""A message from someone who has no keys at all."""
