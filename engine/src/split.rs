//! What the kernel hands over in one read of a TUN, as the packets that it stands for.
//!
//! With `TUN_F_TSO4`, `TUN_F_TSO6` and `TUN_F_USO4`, `TUN_F_USO6` a read is up to 64 KB of one TCP or UDP flow
//! behind a `virtio_net_hdr`; each segment is written to where it will be sealed, headers and checksums included.

use crate::ip::{
    IPV4_CHECKSUM_AT, IPV6_HEADER, IpPacket, Malformed, Sum, TCP, UDP, pseudo_header, set_word, word,
};

/// Bytes of a `virtio_net_hdr`: flags, `gso_type`, `hdr_len`, `gso_size`, `csum_start`, `csum_offset`; the
/// numbers of 16 bits in the order of the host.
pub const VNET_HEADER: usize = 10;

pub(crate) const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
/// A flag beside the type: the first segment has CWR set (RFC 3168 section 6.1.2).
const GSO_ECN: u8 = 0x80;

pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const TCP_SEQUENCE_AT: usize = 4;
const TCP_OFFSET_AT: usize = 12;
pub(crate) const TCP_FLAGS_AT: usize = 13;
pub(crate) const TCP_CHECKSUM_AT: usize = 16;
const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

pub(crate) const UDP_HEADER: usize = 8;
pub(crate) const UDP_LENGTH_AT: usize = 4;
pub(crate) const UDP_CHECKSUM_AT: usize = 6;

/// One read: the headers of all its segments, and their data.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    packet: &'a [u8],
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One packet, whose checksum may be left to us: where the sum begins, and where it goes.
    Whole(Option<(usize, usize)>),
    /// Segments with `size` bytes of data each, but the last; `transport` and `header` bytes before it.
    Segments { is_tcp: bool, ip: IpPacket, header: usize, size: usize },
}

impl<'a> Read<'a> {
    /// What was read, its `virtio_net_hdr` in front.
    ///
    /// # Errors
    /// There is no whole header, its type is one that was not asked for, or it does not fit the packet.
    pub fn new(read: &'a [u8]) -> Result<Self, Malformed> {
        let (vnet, packet) = read.split_first_chunk::<VNET_HEADER>().ok_or(Malformed)?;
        let number = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
        let (flags, kind, size) = (vnet[0], vnet[1] & !GSO_ECN, number(4));
        if kind == GSO_NONE {
            let (start, offset) = (number(6), number(8));
            if flags & NEEDS_CSUM == 0 {
                return Ok(Self { packet, kind: Kind::Whole(None) });
            }
            let fits = start + offset + 2 <= packet.len();
            let place = Some((start, start + offset));
            return fits.then_some(Self { packet, kind: Kind::Whole(place) }).ok_or(Malformed);
        }
        let ip = IpPacket::read(packet)?;
        let is_tcp = kind != GSO_UDP_L4;
        let suits = match kind {
            GSO_TCPV4 => ip.protocol == TCP && ip.source.is_ipv4(),
            GSO_TCPV6 => ip.protocol == TCP && ip.source.is_ipv6(),
            GSO_UDP_L4 => ip.protocol == UDP,
            _ => false,
        };
        if !suits || ip.is_fragment() || ip.total_length != packet.len() || size == 0 {
            return Err(Malformed);
        }
        let transport = &packet[ip.header_length..];
        let own = if is_tcp {
            usize::from(transport.get(TCP_OFFSET_AT).ok_or(Malformed)? >> 4) * 4
        } else {
            UDP_HEADER
        };
        if own < if is_tcp { TCP_HEADER } else { UDP_HEADER } || own > transport.len() {
            return Err(Malformed);
        }
        Ok(Self { packet, kind: Kind::Segments { is_tcp, ip, header: ip.header_length + own, size } })
    }

    /// How many packets it stands for.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.kind {
            Kind::Whole(_) => 1,
            Kind::Segments { header, size, .. } => (self.packet.len() - header).div_ceil(size).max(1),
        }
    }

    /// Bytes of the packet with this index, which is less than `count`.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        match self.kind {
            Kind::Whole(_) => self.packet.len(),
            Kind::Segments { header, size, .. } => {
                header + size.min((self.packet.len() - header).saturating_sub(index * size))
            }
        }
    }

    /// The packet with this index, which is less than `count`.
    pub(crate) fn packet(&self, index: usize) -> Box<[u8]> {
        let mut packet = vec![0; self.length(index)];
        self.write(index, &mut packet);
        packet.into()
    }

    /// Write the packet with this index to `out`, which has its `length`.
    pub fn write(&self, index: usize, out: &mut [u8]) {
        match self.kind {
            Kind::Whole(place) => {
                out.copy_from_slice(self.packet);
                if let Some((start, at)) = place {
                    // The field holds the sum of the pseudo-header, which the sum below takes in.
                    let checksum = Sum::default().with(&out[start..]).checksum();
                    set_word(out, at, if checksum == 0 { 0xFFFF } else { checksum });
                }
            }
            Kind::Segments { is_tcp, ip, header, size } => {
                let data = &self.packet[header + index * size..][..out.len() - header];
                out[..header].copy_from_slice(&self.packet[..header]);
                out[header..].copy_from_slice(data);
                write_ip(&ip, index, out);
                let is_last = index + 1 == self.count();
                write_transport(&ip, is_tcp, (index, index * size, is_last), out);
            }
        }
    }
}

/// Length, identification and checksum of the segment's IP header.
fn write_ip(ip: &IpPacket, index: usize, out: &mut [u8]) {
    let length = out.len();
    if ip.source.is_ipv6() {
        set_word(out, 4, (length - IPV6_HEADER) as u16);
        return;
    }
    set_word(out, 2, length as u16);
    let identification = word(out, 4).wrapping_add(index as u16);
    set_word(out, 4, identification);
    set_word(out, IPV4_CHECKSUM_AT, 0);
    let checksum = Sum::default().with(&out[..ip.header_length]).checksum();
    set_word(out, IPV4_CHECKSUM_AT, checksum);
}

/// Sequence number and flags, or length, and the checksum, of the segment that begins with byte `offset`.
fn write_transport(
    ip: &IpPacket,
    is_tcp: bool,
    (index, offset, is_last): (usize, usize, bool),
    out: &mut [u8],
) {
    let out = &mut out[ip.header_length..];
    let length = out.len();
    let checksum_at = if is_tcp {
        let place = &mut out[TCP_SEQUENCE_AT..TCP_SEQUENCE_AT + 4];
        let sequence = place.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
        place.copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
        if !is_last {
            out[TCP_FLAGS_AT] &= !(TCP_FIN | TCP_PSH);
        }
        if index > 0 {
            out[TCP_FLAGS_AT] &= !TCP_CWR;
        }
        TCP_CHECKSUM_AT
    } else {
        set_word(out, UDP_LENGTH_AT, length as u16);
        UDP_CHECKSUM_AT
    };
    set_word(out, checksum_at, 0);
    let protocol = if is_tcp { TCP } else { UDP };
    let checksum = pseudo_header(ip.source, ip.destination, protocol, length).with(out).checksum();
    // UDP says "no checksum" with 0 (RFC 768); for TCP both mean the same.
    set_word(out, checksum_at, if checksum == 0 && !is_tcp { 0xFFFF } else { checksum });
}
