"""In-order TCP segments of one flow become one large write to the TUN.

The kernel's receive path costs as much for 64 KB as for 1400 bytes, and answers it with one ACK, so what
arrives as a train of segments is written as one packet with a `virtio_net_hdr` that says how to cut it again
(generic segmentation offload). What may be joined is what Linux's own GRO joins: same addresses, ports,
acknowledgement, window, options, TTL and traffic class, don't-fragment set, sequence numbers without a gap,
flags ACK, all segments of one length; a shorter one or one with PSH ends the train.

Joining must not turn a damaged segment into a good one: what was damaged before the peer sealed it still has
its wrong TCP checksum. Two ways keep that checksum meaningful:

* The destination is an address of this host. The checksum for the joined packet is worked out from those of
  the segments alone, without reading their data (a ones' complement sum is a sum: what each segment claims
  adds up), and the kernel verifies it over the data, in C, when the packet reaches the socket.
* The packet will be forwarded, where the kernel computes a new checksum for each segment. So the sum over
  the whole train is verified here first, the data taken as large numbers modulo 65535 (about 0.8 us a
  segment); a train that fails is written as the segments that came.

UDP datagrams of one flow, all of one length but a shorter last one, become one write as well where the kernel
takes that (Linux 6.2), as its own GRO would have joined them. Those without a checksum are not joined, and
those of a train are verified here.

The fast path compares headers as numbers with those that would follow: of a whole run at once, and where that
fails one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice, repeat
from struct import Struct

from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import IPV6_HEADER_LENGTH, adjust_checksum

VNET_HEADER = Struct("=BBHHHH")
"""`struct virtio_net_hdr`: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in host order."""

VNET_HEADER_LENGTH = VNET_HEADER.size
PLAIN = bytes(VNET_HEADER_LENGTH)
"""The virtio_net_hdr of a packet that is just itself."""

NEEDS_CSUM = 1
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5

MAXIMUM_PACKET = 65535
MAXIMUM_TRAINS = 64
"""Ours: flows joined at a time, as many as there can be packets in a batch."""

MAXIMUM_DATAGRAMS = 64
"""Datagrams of one write: as many as the kernel's own receive path joins."""
UDP_HEADER = 8

TCP_ACK = 0x10
TCP_PSH = 0x08
TCP_HEADER = 20
SMALLEST_SEGMENT = 64
"""Ours: bytes of payload below which joining is not worth while."""

_ALIKE = {4: Struct("!4s5xB2x8s"), 6: Struct("!6sBx32s")}
"""By version: what comes before length, and length; protocol; addresses."""
_DATAGRAM = {20: Struct("!2s4x4s2x12s"), 40: Struct("!4s2x38s")}
_NEXT_DATAGRAM = {20: Struct("!4s2x4s2x14sH"), 40: Struct("!46sH")}
_NUMBERED = Struct("!6s4s2x14sH")
"""By bytes of the IP header, what all datagrams of a train have but identification and checksums: without
lengths; and with them, in those that are as long as the first, and then the UDP checksum. The last has the
identification, too: where IPv4 may be fragmented, it must be what the kernel will give the datagram.
"""
_PROTOCOL_AT = {4: 9, 6: 6}
_UDP_CHECKSUM = {4: slice(26, 28), 6: slice(46, 48)}
"""By version, behind an IP header without options."""
_WORD = Struct("!H")
_WORDS = Struct("!HH")
_MODULUS = 0xFFFF
_SEQUENCE = Struct("!I")
_LAST = 0xFFFF_FFFF
"""The largest sequence number (RFC 9293 section 3.4)."""

Write = Callable[[Sequence[bytes]], None]
Admit = Callable[[bytes], bytes | None]


class _Layout:
    """Where things are in a header of one family and length; made once for each."""

    __slots__ = ("_runs", "header", "ip", "mask", "mask_last", "sequence_shift")

    def __init__(self, version: int, header: int) -> None:
        self._runs: dict[int, tuple[int, int]] = {}
        self.header = header
        self.ip = ip = 20 if version == 4 else 40
        # Identification and the checksums differ from segment to segment; everything else must not.
        varying = [ip + 16, ip + 17] + ([4, 5, 10, 11] if version == 4 else [])
        mask = bytearray(b"\xff" * header)
        for at in varying:
            mask[at] = 0
        self.mask = int.from_bytes(mask)
        # The last segment may also differ in length and PSH.
        length_at = 2 if version == 4 else 4
        mask[length_at] = mask[length_at + 1] = 0
        mask[ip + 13] = 0xFF ^ TCP_PSH
        self.mask_last = int.from_bytes(mask)
        self.sequence_shift = 8 * (header - ip - 8)

    def of_run(self, count: int) -> tuple[int, int]:
        """For `count` headers in a row as one number: the mask, and 0, 1, 2, ... at their ends."""
        found = self._runs.get(count)
        if found is None:
            mask = int.from_bytes(self.mask.to_bytes(self.header) * count)
            ramp = sum(count - 1 - place << 8 * self.header * place for place in range(count))
            found = self._runs[count] = (mask, ramp)
        return found


_LAYOUTS: dict[tuple[int, int], _Layout] = {}


def _layout(version: int, header: int) -> _Layout:
    found = _LAYOUTS.get((version, header))
    if found is None:
        found = _LAYOUTS[version, header] = _Layout(version, header)
    return found


class _Train:
    """The segments of one flow so far.

    `total` is the sum of the headers, each taken as one number; `expected` is the masked header that would
    follow. `packets` may have a trailer behind them, from `end` on, or from `last` on in the last of them.
    """

    __slots__ = (
        "end",
        "expected",
        "first",
        "full",
        "header",
        "last",
        "layout",
        "local",
        "packets",
        "segment",
        "step",
        "total",
    )

    def __init__(self, packet: bytes, layout: _Layout, local: bool) -> None:
        header = layout.header
        self.first = packet
        self.layout = layout
        self.header = header
        self.local = local
        self.end = self.last = len(packet)
        self.segment = len(packet) - header
        self.total = number = int.from_bytes(packet[:header])
        self.step = self.segment << layout.sequence_shift
        self.expected = (number & layout.mask) + self.step
        # Where the sequence number wraps its carry would be in the port, so a train ends there at the latest.
        (sequence,) = _SEQUENCE.unpack_from(packet, layout.ip + 4)
        room = min((MAXIMUM_PACKET - header) // self.segment - 1, (_LAST - sequence) // self.segment)
        # The number that is expected once no further segment fits.
        self.full = self.expected + room * self.step
        self.packets = [packet]

    def join_last_or_next(self, packet: bytes, header: int, flags: int) -> bool:
        """Append `packet` if it follows, perhaps shorter or with PSH; else False, and no change."""
        mask = self.layout.mask_last
        if header != self.header or flags & ~TCP_PSH != TCP_ACK or self.expected == self.full:
            return False
        if not header < len(packet) <= self.end:
            return False
        number = int.from_bytes(packet[:header])
        if number & mask != self.expected & mask:
            return False
        self.total += number
        self.packets.append(packet)
        self.expected += self.step
        self.last = len(packet)
        return True

    def segments(self) -> list[bytes]:
        """The packets as they came."""
        end = self.end
        return [packet[:end] for packet in self.packets[:-1]] + [self.packets[-1][: self.last]]

    def join_run(self, run: list[bytes], tail: bytes) -> bool:
        """Append plaintexts of one length if all of them follow with the same trailer; else False, no change.

        The masked headers in a row, as one number, are `expected` in every place, plus 0, 1, 2, ... times
        the length of a segment where the sequence numbers are.
        """
        count, header, end = len(run), self.header, self.end
        room = (self.full - self.expected) // self.step
        if count > room or len(run[0]) != end + len(tail):
            return False
        number = int.from_bytes(b"".join([plaintext[:header] for plaintext in run]))
        mask, ramp = self.layout.of_run(count)
        first = int.from_bytes(self.expected.to_bytes(header) * count)
        if number & mask != first + (self.segment * ramp << self.layout.sequence_shift):
            return False
        if [plaintext[end:] for plaintext in run] != [tail] * count:
            return False
        self.packets += run
        self.expected += count * self.step
        # The sum of the 16-bit words is the same whether they are of one number or of many.
        self.total += number % _MODULUS
        return True

    def is_intact(self, payloads: list[bytes]) -> bool:
        """Whether the checksums of a train that will be forwarded are good, all summed at once.

        One damaged segment is found as surely as by its own checksum; two are missed if they are each
        other's opposite, which is as rare as damage that a checksum does not show.
        """
        data = sum(map(int.from_bytes, payloads[:-1])) << 8 * (self.segment % 2)
        data += int.from_bytes(payloads[-1]) << 8 * (len(payloads[-1]) % 2)
        return (self._headers() + data) % _MODULUS == 0

    def joined_checksum(self, header: bytes, length: int) -> int:
        """The TCP checksum of the joined packet if the data is what each segment's checksum claims.

        `header` is the joined packet's with a checksum of 0, `length` its length.
        """
        ip = self.layout.ip
        return (self._headers() - self._pseudo_header(length - ip) - int.from_bytes(header[ip:])) % _MODULUS

    def _pseudo_header(self, tcp_length: int) -> int:
        ip = self.layout.ip
        addresses = self.first[12:20] if ip == 20 else self.first[8:40]
        return int.from_bytes(addresses) + IpProtocol.TCP + tcp_length

    def _headers(self) -> int:
        """The sum of all TCP headers and pseudo-headers; with good data's, it is 0 modulo 65535.

        An IPv4 header's own checksum makes its sum 0; what an IPv6 header adds is taken off again.
        """
        ip, count = self.layout.ip, len(self.packets)
        total = self.total + (count - 1) * self._pseudo_header(self.end - ip)
        total += self._pseudo_header(self.last - ip)
        if ip == IPV6_HEADER_LENGTH:
            # The last header's payload length, two bytes with 34 after them, is its own.
            total -= count * int.from_bytes(self.first[:ip]) - (self.end - self.last << 8 * 34)
        return total

    def write(self, write: Write) -> None:
        """Write the segments as one packet; as they came if there is one, or if checksums are not good."""
        packets, header_length, end = self.packets, self.header, self.end
        payloads = [packet[header_length:end] for packet in packets[:-1]]
        payloads.append(packets[-1][header_length : self.last])
        if len(packets) == 1 or not (self.local or self.is_intact(payloads)):
            for packet in self.segments():
                write((PLAIN, packet))
            return
        length = (len(packets) - 1) * self.segment + self.last
        ip = self.layout.ip
        header = bytearray(self.first[:header_length])
        # The last header has the PSH flag of the train; the kernel sets it on the last segment again.
        header[ip + 13] = packets[-1][ip + 13]
        length_at, counted = (2, length) if ip == 20 else (4, length - ip)
        (before,) = _WORD.unpack_from(header, length_at)
        _WORD.pack_into(header, length_at, counted)
        if ip == 20:
            (old,) = _WORD.unpack_from(header, 10)
            _WORD.pack_into(header, 10, adjust_checksum(old, before, counted))
        _WORD.pack_into(header, ip + 16, 0)
        gso_type = GSO_TCPV4 if ip == 20 else GSO_TCPV6
        if self.local:
            vnet = VNET_HEADER.pack(0, gso_type, header_length, self.segment, 0, 0)
            checksum = self.joined_checksum(bytes(header), length)
        else:
            vnet = VNET_HEADER.pack(NEEDS_CSUM, gso_type, header_length, self.segment, ip, 16)
            # What the kernel goes on from: the pseudo-header's sum (RFC 9293 section 3.1).
            checksum = self._pseudo_header(length - ip) % _MODULUS
        _WORD.pack_into(header, ip + 16, checksum)
        write([vnet, bytes(header), *payloads])


class _Datagrams:
    """The UDP datagrams of one flow so far.

    `packets` may have a trailer behind them, from `end` on, or from `last` on in the last of them.
    """

    __slots__ = ("end", "first", "header", "ip", "last", "most", "number", "packets", "segment")

    def __init__(self, packet: bytes, ip: int) -> None:
        self.first = packet
        self.ip = ip
        self.header = ip + UDP_HEADER
        self.end = self.last = len(packet)
        self.segment = self.end - self.header
        self.most = min(MAXIMUM_DATAGRAMS, (MAXIMUM_PACKET - self.header) // self.segment)
        self.packets = [packet]
        # With DF, and in IPv6, nobody looks at it (RFC 6864).
        self.number = _WORD.unpack_from(packet, 4)[0] if ip == 20 and not packet[6] else None

    @property
    def goes_on(self) -> bool:
        """Whether a further one may follow."""
        return self.last == self.end and len(self.packets) < self.most

    def join(self, packet: bytes) -> bool:
        """Append a datagram if it is alike, perhaps shorter; else False, and no change."""
        read = _DATAGRAM[self.ip].unpack_from
        if not self.goes_on or len(packet) > self.end or read(packet) != read(self.first):
            return False
        if self.number is not None:
            wanted = self.number + len(self.packets) & 0xFFFF
            if packet[4:6] != wanted.to_bytes(2):
                return False
        self.packets.append(packet)
        self.last = len(packet)
        return True

    def join_alike(self, plaintexts: list[bytes], index: int) -> int:
        """Append the plaintexts after `index` that are as long and alike, up to one that is not; how many."""
        if not self.goes_on:
            return 0
        end, tail = self.end, plaintexts[index][self.end :]
        before, append = len(self.packets), self.packets.append
        if self.number is None:
            read = _NEXT_DATAGRAM[self.ip].unpack_from
            heads: Iterable[tuple[bytes, ...]] = repeat(read(self.first)[:-1])
        else:
            read = _NUMBERED.unpack_from
            start, rest = self.first[:4], read(self.first)[1:-1]
            first = self.number + before
            heads = ((start + (number & 0xFFFF).to_bytes(2), *rest) for number in count(first))
        room = islice(plaintexts, index + 1, index + 1 + self.most - before)
        for plaintext, head in zip(room, heads, strict=False):
            found = read(plaintext)
            # Without a checksum nothing tells whether it is damaged.
            if found[:-1] != head or not found[-1] or plaintext[end:] != tail:
                break
            append(plaintext)
        return len(self.packets) - before

    def write(self, write: Write) -> None:
        """Write the datagrams as one packet; as they came if there is one, or if checksums are not good."""
        packets, ip, header_length, end = self.packets, self.ip, self.header, self.end
        payloads = [packet[header_length:end] for packet in packets[:-1]]
        payloads.append(packets[-1][header_length : self.last])
        if len(packets) == 1 or not self._is_intact(payloads):
            for packet in packets[:-1]:
                write((PLAIN, packet[:end]))
            write((PLAIN, packets[-1][: self.last]))
            return
        length = (len(packets) - 1) * self.segment + self.last
        header = bytearray(self.first[:header_length])
        length_at, counted = (2, length) if ip == 20 else (4, length - ip)
        (before,) = _WORD.unpack_from(header, length_at)
        _WORD.pack_into(header, length_at, counted)
        if ip == 20:
            (old,) = _WORD.unpack_from(header, 10)
            _WORD.pack_into(header, 10, adjust_checksum(old, before, counted))
        _WORD.pack_into(header, ip + 4, length - ip)
        # What the kernel goes on from: the pseudo-header's sum (RFC 768).
        _WORD.pack_into(header, ip + 6, self._pseudo_header(length - ip) % _MODULUS)
        vnet = VNET_HEADER.pack(NEEDS_CSUM, GSO_UDP_L4, header_length, self.segment, ip, 6)
        write([vnet, bytes(header), *payloads])

    def _is_intact(self, payloads: list[bytes]) -> bool:
        """Whether all checksums are good, summed at once; that of an IPv4 header adds 0."""
        start = 0 if self.ip == 20 else self.ip
        total = int.from_bytes(b"".join([packet[start : self.header] for packet in self.packets]))
        total += (len(payloads) - 1) * self._pseudo_header(self.end - self.ip)
        total += self._pseudo_header(self.last - self.ip)
        total += sum(map(int.from_bytes, payloads[:-1])) << 8 * (self.segment % 2)
        total += int.from_bytes(payloads[-1]) << 8 * (len(payloads[-1]) % 2)
        return total % _MODULUS == 0

    def _pseudo_header(self, length: int) -> int:
        addresses = self.first[12:20] if self.ip == 20 else self.first[8:40]
        return int.from_bytes(addresses) + IpProtocol.UDP + length


class Coalescer:
    """Writes packets to one TUN, joining what can be joined.

    `write` takes buffers that together are one packet with its virtio_net_hdr; where the TUN has no such
    header, `joins` is false and each packet is written as it is. `joins_udp` says whether its kernel takes
    joined datagrams, `is_local` whether packed destination bytes are an address of this host. Nothing is kept
    beyond `flush`, which the engine calls at the end of each batch, so no packet waits for another.
    """

    def __init__(self, write: Write, is_local: Callable[[bytes], bool], joins: bool = True) -> None:
        self._write = write
        self._is_local = is_local
        self._joins = joins
        self.joins_udp = False
        self._trains: dict[bytes, _Train | _Datagrams] = {}

    def deliver(self, plaintexts: list[bytes], admit: Admit, by_address: bool = False) -> tuple[int, int]:
        """Take plaintexts of one length from one SA; returns how many packets, and bytes, were admitted.

        `admit` checks a plaintext against everything there is to check and returns its packet without
        trailer, or None. It is not asked about a segment whose header, addresses and all, follows from the
        one before and whose trailer is the same; nor, where its answer depends on the addresses alone
        (`by_address`), about UDP between the same addresses.
        """
        from_bytes = int.from_bytes
        packets = octets = 0
        # The attributes of the train are locals while it grows; -1 is never the number that follows.
        train: _Train | None = None
        append, tail = [b""].append, b""
        header = mask = step = total = full = 0
        expected, done = -1, 0
        for index, plaintext in enumerate(plaintexts):
            if index < done:
                continue
            number = from_bytes(plaintext[:header])
            if number & mask == expected != full and plaintext.endswith(tail):
                append(plaintext)
                total += number
                expected += step
                continue
            if train is not None:
                joined = (expected - train.expected) // step
                packets += joined
                octets += joined * train.end
                train.expected, train.total = expected, total
                train, expected = None, -1
            packet = admit(plaintext)
            if packet is None:
                continue
            packets += 1
            octets += len(packet)
            taken = self._take(packet)
            if isinstance(taken, _Datagrams):
                alike = taken.join_alike(plaintexts, index)
                if alike and not taken.goes_on:
                    self._end(packet)
                done = index + 1 + alike
                packets += alike
                octets += alike * len(packet)
                continue
            train = taken
            if train is None:
                alike = self._write_alike(packet, plaintexts, index) if by_address else 0
                done = index + 1 + alike
                packets += alike
                octets += alike * len(packet)
            else:
                tail = plaintext[train.end :]
                run = plaintexts[index + 1 :]
                if run and train.join_run(run, tail):
                    return packets + len(run), octets + len(run) * train.end
                append, header, mask = train.packets.append, train.header, train.layout.mask
                expected, step, full, total = train.expected, train.step, train.full, train.total
        if train is not None:
            joined = (expected - train.expected) // step
            packets += joined
            octets += joined * train.end
            train.expected, train.total = expected, total
        return packets, octets

    def _write_alike(self, packet: bytes, plaintexts: list[bytes], index: int) -> int:
        """Write the plaintexts after `index` that are UDP packets like `packet`, there; returns how many.

        Their ports may differ. Where datagrams are joined, they are only written while no train waits that
        one of them could overtake, and only those that begin none: without a checksum, like `packet`.
        """
        version, end = packet[0] >> 4, len(packet)
        if packet[_PROTOCOL_AT[version]] != IpProtocol.UDP:
            return 0
        checked = _UDP_CHECKSUM[version]
        if self.joins_udp and (self._trains or any(packet[checked])):
            return 0
        read = _ALIKE[version].unpack_from
        head, tail = read(packet), plaintexts[index][end:]
        write, plain = self._write, (PLAIN,) if self._joins else ()
        count = 0
        for plaintext in islice(plaintexts, index + 1, None):
            if read(plaintext) != head or plaintext[end:] != tail:
                break
            if self.joins_udp and any(plaintext[checked]):
                break
            write((*plain, plaintext[:end]))
            count += 1
        return count

    def write_plain(self, packet: bytes) -> None:
        """Write one packet as it is."""
        self._write((PLAIN, packet) if self._joins else (packet,))

    def flush(self) -> None:
        """Write every train."""
        if self._trains:
            for train in self._trains.values():
                train.write(self._write)
            self._trains.clear()

    def _take(self, packet: bytes) -> _Train | _Datagrams | None:
        """Write a packet, or begin or continue a train with it; returns a train that may go on."""
        read = _read_tcp(packet) if self._joins else None
        if read is None:
            datagram = _read_udp(packet) if self.joins_udp else None
            if datagram is None:
                self.write_plain(packet)
                return None
            return self._take_datagram(packet, *datagram)
        version, header, key, flags, joinable = read
        segment = len(packet) - header
        train = self._trains.get(key)
        if isinstance(train, _Train):
            if train.join_last_or_next(packet, header, flags):
                if train.segment == segment and not flags & TCP_PSH:
                    return train
                self._trains.pop(key).write(self._write)
                return None
            # What does not continue the train must not overtake it either.
            self._trains.pop(key).write(self._write)
        if not joinable or segment < SMALLEST_SEGMENT or len(self._trains) >= MAXIMUM_TRAINS:
            self.write_plain(packet)
            return None
        destination = key[4:8] if version == 4 else key[16:32]
        # With segments of odd length the data of every second one would be summed a byte off.
        local = segment % 2 == 0 and self._is_local(destination)
        train = self._trains[key] = _Train(packet, _layout(version, header), local)
        return train

    def _take_datagram(self, packet: bytes, ip: int, key: bytes, joinable: bool) -> _Datagrams | None:
        """The same for UDP."""
        train = self._trains.get(key)
        if isinstance(train, _Datagrams):
            if joinable and train.join(packet):
                if train.goes_on:
                    return train
                self._trains.pop(key).write(self._write)
                return None
            # What does not continue the train must not overtake it either.
            self._trains.pop(key).write(self._write)
        if not joinable or len(self._trains) >= MAXIMUM_TRAINS:
            self.write_plain(packet)
            return None
        begun = self._trains[key] = _Datagrams(packet, ip)
        return begun

    def _end(self, packet: bytes) -> None:
        """Write the train of a datagram's flow."""
        read = _read_udp(packet)
        if read is not None:
            self._trains.pop(read[1]).write(self._write)


def _read_tcp(packet: bytes) -> tuple[int, int, bytes, int, bool] | None:
    """Version, length of both headers, flow, TCP flags, whether a train may begin; None if it is not TCP."""
    if packet[0] == 0x45:
        if len(packet) < 40 or packet[9] != IpProtocol.TCP:
            return None
        version, ip, flow, unfragmented = 4, 20, packet[12:24], packet[6:8] == b"\x40\x00"
    elif packet[0] >> 4 == 6:
        if len(packet) < 60 or packet[6] != IpProtocol.TCP:
            return None
        version, ip, flow, unfragmented = 6, 40, packet[8:44], True
    else:
        return None
    header = ip + (packet[ip + 12] >> 4) * 4
    flags = packet[ip + 13]
    joinable = unfragmented and flags == TCP_ACK and ip + TCP_HEADER <= header < len(packet)
    return version, header, flow, flags, joinable


def _read_udp(packet: bytes) -> tuple[int, bytes, bool] | None:
    """Bytes of the IP header, flow, whether it may be joined; None if it is not UDP behind such a header."""
    if packet[0] == 0x45:
        if len(packet) < 28 or packet[9] != IpProtocol.UDP:
            return None
        ip, flow, unfragmented = 20, packet[12:24], packet[6:8] in (b"\x40\x00", b"\x00\x00")
    elif packet[0] >> 4 == 6:
        if len(packet) < 48 or packet[6] != IpProtocol.UDP:
            return None
        ip, flow, unfragmented = 40, packet[8:44], True
    else:
        return None
    length, checksum = _WORDS.unpack_from(packet, ip + 4)
    joinable = unfragmented and length == len(packet) - ip > UDP_HEADER and checksum != 0
    # TCP between the same ports is another flow.
    return ip, flow + b"u", joinable
