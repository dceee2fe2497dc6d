"""Bytes -> message. Whatever fails before a message is authentic changes nothing.

header -> message ID -> open (SK, SKF) -> chain -> typed message, which is the cause of a row of the table
"""

from __future__ import annotations

from vpnd.ike.faults import Drop
from vpnd.ike.message import Received
from vpnd.ike.registry import Registry
from vpnd.ike.v2 import ladder
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.messages import Malformed, read
from vpnd.ike.v2.protect import Opened
from vpnd.ike.v2.state import State
from vpnd.model.child import Path
from vpnd.wire.chain import decode_chain, encode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header


def check_header(sa: IkeSa, header: Header) -> None:
    """Both SPIs and the sender's role fit (RFC 7296 sections 2.6 and 3.1). Raises Drop."""
    if header.has(Flag.INITIATOR) == sa.initiator:
        raise Drop("the flag says that we sent it")
    if header.spi_i != sa.spi_i:
        raise Drop("unknown IKE SPI")
    if sa.state is not State.SENT_INIT and header.spi_r != sa.spi_r:
        raise Drop("unknown IKE SPI")


def read_plain(registry: Registry, sa: IkeSa, path: Path, header: Header, data: bytes) -> Received:
    """A message of IKE_SA_INIT. Raises DecodeError."""
    received = read(header, path, data, decode_chain(header.next_payload, data[HEADER_LENGTH:]))
    _draw(registry, sa, received)
    return received


def read_opened(
    registry: Registry, sa: IkeSa, path: Path, header: Header, data: bytes, opened: Opened
) -> Received:
    """A protected message; one that cannot be read is Malformed."""
    try:
        received = read(header, path, data, opened.chain())
    except DecodeError as error:
        return Received(Malformed(error), (), (), header, path, data)
    _draw(registry, sa, received)
    return received


def _draw(registry: Registry, sa: IkeSa, received: Received) -> None:
    header, payloads = received.header, received.payloads
    text = ladder.text_of(header.exchange, header.message_id, payloads, header.has(Flag.RESPONSE))
    detail = ladder.detail_of(payloads)
    if sa.tunnel in registry.captured:
        registry.show(sa.tunnel, False, received.path, header, *encode_chain(received.raw))
    registry.draw(sa.tunnel, False, text, len(received.data), detail, sa.is_stranger)
