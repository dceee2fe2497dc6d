//! In-order TCP segments of one flow, and its UDP datagrams, become one large write to the TUN, which the kernel
//! cuts again; UDP where the kernel takes such writes (Linux 6.2).
//!
//! What is joined is what `vpnd.datapath.coalesce` joins. The checksum of every segment is verified first, so
//! that joining turns no damaged segment into a good one; a train with a damaged one is written as the segments
//! that came. The Python engine leaves that to the kernel where the destination is an address of this host; here
//! the data is in the processor's cache already, and no system call has to find out whose the address is.

use crate::interface::TunnelId;
use crate::ip::{
    IPV4_CHECKSUM_AT, IPV4_HEADER, IPV6_HEADER, Sum, TCP, UDP, adjust_checksum, set_word, version, word,
};
use crate::split::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER, TCP_PSH,
    TCP_SEQUENCE_AT, UDP_CHECKSUM_AT, UDP_HEADER, UDP_LENGTH_AT, VNET_HEADER,
};

const MAXIMUM_PACKET: usize = 65535;
/// Ours: flows joined at a time, as many as there can be packets in a batch.
const MAXIMUM_TRAINS: usize = 64;
/// Datagrams of one write: as many as the kernel's own receive path joins.
const MAXIMUM_DATAGRAMS: usize = 64;
/// Ours: bytes of a segment's payload below which joining is not worth while.
const SMALLEST_SEGMENT: usize = 64;

const TCP_ACK: u8 = 0x10;
/// IPv4's flags and offset of a packet that may not be fragmented, and is no fragment; without the flag, it may be.
const WHOLE: u16 = 0x4000;

/// One write to a TUN, its `virtio_net_hdr` in front where the TUN has one.
#[derive(Debug)]
struct Write {
    tunnel: TunnelId,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Where a packet by itself ends in `Writes::plain`.
    Plain(usize),
    /// A joined packet.
    Joined(Train),
}

/// What is to be written to TUNs, in order; used again for each batch, so that its memory is.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    queue: Vec<Write>,
    plain: Vec<u8>,
    spare: Vec<Train>,
}

impl Writes {
    /// Forget it all, but for the memory.
    pub(crate) fn clear(&mut self) {
        self.plain.clear();
        for write in self.queue.drain(..) {
            if let Place::Joined(train) = write.place
                && self.spare.len() < MAXIMUM_TRAINS
            {
                self.spare.push(train);
            }
        }
    }

    /// Each write and the tunnel whose TUN it is for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TunnelId, &[u8])> {
        let mut start = 0;
        self.queue.iter().map(move |write| match &write.place {
            Place::Plain(end) => (write.tunnel, &self.plain[std::mem::replace(&mut start, *end)..*end]),
            Place::Joined(train) => (write.tunnel, &*train.joined),
        })
    }

    /// Write one packet as it is.
    pub(crate) fn push(&mut self, tunnel: TunnelId, vnet_header: bool, packet: &[u8]) {
        self.push_pieces(tunnel, vnet_header, [packet, &[]]);
    }

    fn push_pieces(&mut self, tunnel: TunnelId, vnet_header: bool, pieces: [&[u8]; 2]) {
        if vnet_header {
            self.plain.extend_from_slice(&[0; VNET_HEADER]);
        }
        for piece in pieces {
            self.plain.extend_from_slice(piece);
        }
        self.queue.push(Write { tunnel, place: Place::Plain(self.plain.len()) });
    }
}

/// Addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    V4([u8; 12]),
    V6([u8; 36]),
}

/// What is looked at in a TCP segment or UDP datagram: the protocol, bytes of the IP header and of both headers, the
/// flow, the flags of TCP, and whether a train may begin with it.
#[derive(Clone, Copy)]
struct Segment {
    protocol: u8,
    ip: usize,
    header: usize,
    key: Key,
    flags: u8,
    joinable: bool,
}

impl Segment {
    /// None if it is not TCP, or with `udp` UDP, right behind an IP header without options.
    fn of(packet: &[u8], udp: bool) -> Option<Self> {
        let (ip, protocol) = match version(packet) {
            4 if packet[0] == 0x45 => (IPV4_HEADER, *packet.get(9)?),
            6 => (IPV6_HEADER, *packet.get(6)?),
            _ => return None,
        };
        let least = match protocol {
            TCP => TCP_HEADER,
            UDP if udp => UDP_HEADER,
            _ => return None,
        };
        if packet.len() < ip + least {
            return None;
        }
        let (key, fragment) = if ip == IPV4_HEADER {
            (Key::V4(*packet[12..24].first_chunk()?), word(packet, 6))
        } else {
            (Key::V6(*packet[8..44].first_chunk()?), WHOLE)
        };
        if protocol == UDP {
            let whole = fragment & !WHOLE == 0;
            let header = ip + UDP_HEADER;
            let right = usize::from(word(packet, ip + UDP_LENGTH_AT)) == packet.len() - ip;
            // Without a checksum nothing tells whether it is damaged.
            let joinable = whole && right && word(packet, ip + UDP_CHECKSUM_AT) != 0 && header < packet.len();
            return Some(Self { protocol, ip, header, key, flags: 0, joinable });
        }
        let header = ip + usize::from(packet[ip + 12] >> 4) * 4;
        let flags = packet[ip + TCP_FLAGS_AT];
        let long = packet.len() >= header + SMALLEST_SEGMENT;
        let joinable = fragment == WHOLE && flags == TCP_ACK && ip + TCP_HEADER <= header && long;
        Some(Self { protocol, ip, header, key, flags, joinable })
    }
}

/// The segments of one flow so far.
///
/// `joined` is the packet that they become, behind its `virtio_net_hdr`; `heads` are their headers as they came.
#[derive(Debug)]
struct Train {
    protocol: u8,
    key: Key,
    ip: usize,
    header: usize,
    /// Bytes of data in each but the last.
    segment: usize,
    /// Bytes of data in the last.
    last: usize,
    count: usize,
    joined: Vec<u8>,
    heads: Vec<u8>,
}

impl Train {
    /// A train that begins with a packet, in the memory of one that was written.
    fn begin(spare: Option<Self>, packet: &[u8], read: &Segment) -> Self {
        let (mut joined, mut heads) =
            spare.map_or_else(Default::default, |spare| (spare.joined, spare.heads));
        joined.clear();
        heads.clear();
        joined.extend_from_slice(&[0; VNET_HEADER]);
        joined.extend_from_slice(packet);
        heads.extend_from_slice(&packet[..read.header]);
        let segment = packet.len() - read.header;
        Self {
            protocol: read.protocol,
            key: read.key,
            ip: read.ip,
            header: read.header,
            segment,
            last: segment,
            count: 1,
            joined,
            heads,
        }
    }

    /// Append a packet if it follows, perhaps shorter or with PSH; else false, and no change.
    fn join(&mut self, packet: &[u8], read: &Segment) -> bool {
        let (ip, header) = (self.ip, self.header);
        let data = packet.len().saturating_sub(header);
        if read.header != header || self.is_full() || data == 0 || data > self.segment {
            return false;
        }
        // Identification and the checksums differ from segment to segment, length and PSH in the last.
        let first = &self.heads[..header];
        let ports_end = ip + 4;
        let same = if ip == IPV4_HEADER {
            packet[..2] == first[..2]
                && packet[6..IPV4_CHECKSUM_AT] == first[6..IPV4_CHECKSUM_AT]
                && packet[12..ports_end] == first[12..ports_end]
        } else {
            packet[..4] == first[..4] && packet[6..ports_end] == first[6..ports_end]
        };
        let follows = match self.protocol {
            UDP => read.joinable && self.is_numbered(packet),
            _ => self.follows(packet, read.flags),
        };
        if !same || !follows {
            return false;
        }
        self.joined.extend_from_slice(&packet[header..]);
        self.heads.extend_from_slice(&packet[..header]);
        self.last = data;
        self.count += 1;
        true
    }

    /// Whether it is TCP's next segment: its flags, number, window and options.
    fn follows(&self, packet: &[u8], flags: u8) -> bool {
        let (ip, header) = (self.ip, self.header);
        let first = &self.heads[..header];
        let (sequence_at, flags_at) = (ip + TCP_SEQUENCE_AT, ip + TCP_FLAGS_AT);
        let rest = |header: &[u8]| [header[flags_at + 1], header[flags_at + 2]];
        flags & !TCP_PSH == TCP_ACK
            && packet[sequence_at + 4..flags_at] == first[sequence_at + 4..flags_at]
            && rest(packet) == rest(first)
            && packet[ip + TCP_CHECKSUM_AT + 2..header] == first[ip + TCP_CHECKSUM_AT + 2..]
            // The numbers of a train do not wrap.
            && sequence(packet, sequence_at) == sequence(first, sequence_at) + (self.count * self.segment) as u64
    }

    /// Whether a datagram that may be fragmented has the identification that the kernel will give it; all others are
    /// never looked at (RFC 6864).
    fn is_numbered(&self, packet: &[u8]) -> bool {
        self.ip == IPV6_HEADER
            || word(packet, 6) == WHOLE
            || word(packet, 4) == word(&self.heads, 4).wrapping_add(self.count as u16)
    }

    const fn is_full(&self) -> bool {
        let most = (MAXIMUM_PACKET - self.header) / self.segment;
        self.count == most || (self.protocol == UDP && self.count == MAXIMUM_DATAGRAMS)
    }

    /// The headers and data of each segment as it came.
    fn segments(&self) -> impl Iterator<Item = [&[u8]; 2]> {
        let data = self.joined[VNET_HEADER + self.header..].chunks(self.segment);
        self.heads.chunks(self.header).zip(data).map(|(head, data)| [head, data])
    }

    /// Whether the checksums of every segment verify.
    fn is_intact(&self) -> bool {
        self.segments().all(|[head, data]| {
            let (ip, transport) = head.split_at(self.ip);
            let covered = self.pseudo_header(transport.len() + data.len());
            (self.ip == IPV6_HEADER || Sum::default().with(ip).folded() == 0xFFFF)
                && covered.with(transport).with(data).folded() == 0xFFFF
        })
    }

    fn pseudo_header(&self, length: usize) -> Sum {
        let addresses = if self.ip == IPV4_HEADER { &self.heads[12..20] } else { &self.heads[8..40] };
        Sum::default().with(addresses).add_number(u32::from(self.protocol)).add_number(length as u32)
    }

    /// Make `joined` one packet with a `virtio_net_hdr` that says how to cut it again.
    fn finish(&mut self) {
        let (ip, header) = (self.ip, self.header);
        let length = self.joined.len() - VNET_HEADER;
        let checksum_at = if self.protocol == UDP { UDP_CHECKSUM_AT } else { TCP_CHECKSUM_AT };
        // What the kernel goes on from (RFC 9293 section 3.1, RFC 768).
        let checksum = match self.pseudo_header(length - ip).folded() {
            0xFFFF => 0,
            sum => sum,
        };
        let (vnet, packet) = self.joined.split_at_mut(VNET_HEADER);
        vnet[0] = NEEDS_CSUM;
        vnet[1] = match (self.protocol, ip) {
            (UDP, _) => GSO_UDP_L4,
            (_, IPV4_HEADER) => GSO_TCPV4,
            _ => GSO_TCPV6,
        };
        let numbers = [header, self.segment, ip, checksum_at];
        for (place, number) in vnet[2..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&(number as u16).to_ne_bytes());
        }
        if self.protocol == UDP {
            set_word(packet, ip + UDP_LENGTH_AT, (length - ip) as u16);
        } else {
            // The last header has the PSH flag of the train; the kernel sets it on the last segment again.
            packet[ip + TCP_FLAGS_AT] = self.heads[self.heads.len() - header + ip + TCP_FLAGS_AT];
        }
        if ip == IPV4_HEADER {
            let before = word(packet, 2);
            set_word(packet, 2, length as u16);
            let mended = adjust_checksum(word(packet, IPV4_CHECKSUM_AT), before, length as u16);
            set_word(packet, IPV4_CHECKSUM_AT, mended);
        } else {
            set_word(packet, 4, (length - ip) as u16);
        }
        set_word(packet, ip + checksum_at, checksum);
    }
}

fn sequence(header: &[u8], at: usize) -> u64 {
    u64::from(word(header, at)) << 16 | u64::from(word(header, at + 2))
}

/// Joins what can be joined of one tunnel's packets; nothing is kept beyond `flush`.
///
/// Where the TUN has no `virtio_net_hdr`, `joins` is false and each packet is written as it is; `joins_udp` says
/// whether its kernel takes joined datagrams.
#[derive(Debug)]
pub(crate) struct Coalescer {
    tunnel: TunnelId,
    joins: bool,
    pub(crate) joins_udp: bool,
    trains: Vec<Train>,
}

impl Coalescer {
    pub(crate) const fn new(tunnel: TunnelId, joins: bool) -> Self {
        Self { tunnel, joins, joins_udp: false, trains: Vec::new() }
    }

    /// Write one packet of our own.
    pub(crate) fn write_plain(&self, packet: &[u8], out: &mut Writes) {
        out.push(self.tunnel, self.joins, packet);
    }

    /// Write a packet, or begin or continue a train with it.
    pub(crate) fn take(&mut self, packet: &[u8], out: &mut Writes) {
        let Some(read) = Segment::of(packet, self.joins_udp).filter(|_| self.joins) else {
            self.write_plain(packet, out);
            return;
        };
        // Most packets follow the last one.
        if let Some(at) =
            self.trains.iter().rposition(|train| train.protocol == read.protocol && train.key == read.key)
        {
            let train = &mut self.trains[at];
            let goes_on = train.join(packet, &read);
            let whole = train.last == train.segment && (train.protocol == TCP || !train.is_full());
            if goes_on && whole && read.flags & TCP_PSH == 0 {
                return;
            }
            // What does not continue the train must not overtake it either.
            let ended = self.trains.remove(at);
            self.write(ended, out);
            if goes_on {
                return;
            }
        }
        if !read.joinable || self.trains.len() >= MAXIMUM_TRAINS {
            self.write_plain(packet, out);
            return;
        }
        self.trains.push(Train::begin(out.spare.pop(), packet, &read));
    }

    /// Write every train.
    pub(crate) fn flush(&mut self, out: &mut Writes) {
        let mut trains = std::mem::take(&mut self.trains);
        for train in trains.drain(..) {
            self.write(train, out);
        }
        self.trains = trains;
    }

    fn write(&self, mut train: Train, out: &mut Writes) {
        if train.count > 1 && train.is_intact() {
            train.finish();
            out.queue.push(Write { tunnel: self.tunnel, place: Place::Joined(train) });
            return;
        }
        for pieces in train.segments() {
            out.push_pieces(self.tunnel, self.joins, pieces);
        }
        out.spare.push(train);
    }
}
