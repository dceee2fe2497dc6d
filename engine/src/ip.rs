//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers: what selectors, the path MTU and the copying of DSCP and ECN need.

use std::net::IpAddr;

use crate::sys;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Where an IPv4 header has its checksum.
pub const IPV4_CHECKSUM_AT: usize = 10;
/// The time to live of packets that are made here.
pub const DEFAULT_TTL: u8 = 64;

/// IPv4's don't-fragment flag, in the 16 bits of flags and offset.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// IPv4's more-fragments flag, in the same place.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// IPv4's fragment offset, in units of 8 bytes.
pub const FRAGMENT_OFFSET_MASK: u16 = 0x1FFF;
const IPV6_MORE_FRAGMENTS: u16 = 0x0001;
const IPV6_FRAGMENT_OFFSET_MASK: u16 = 0xFFF8;

/// The ECN field within a traffic class.
pub const ECN_MASK: u8 = 0x03;
/// The DSCP within a traffic class.
pub const DSCP_MASK: u8 = 0xFC;

/// RFC 8200 section 4.1: the recommended order names seven extension headers before the payload.
const MAX_EXTENSION_HEADERS: usize = 8;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP.
pub const ICMP: u8 = 1;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Whether it is an extension header whose length counts 8-byte units beyond the first (RFC 8200 section 4,
/// RFC 7045): hop-by-hop options, routing, destination options, mobility, HIP, Shim6.
#[must_use]
pub const fn is_option_header(header: u8) -> bool {
    matches!(header, 0 | 43 | 60 | 135 | 139 | 140)
}

/// Whether the protocol's header begins with source and destination port: TCP, UDP, DCCP, SCTP, UDP-Lite.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// Bytes that are no IP packet: a length does not fit the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What an IP packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The transport protocol, behind any IPv6 extension headers.
    pub protocol: u8,
    /// Bytes before the transport protocol.
    pub header_length: usize,
    /// Bytes of the whole packet, which may be followed by link padding.
    pub total_length: usize,
    /// DSCP and ECN as one byte.
    pub traffic_class: u8,
    /// Whether no router may fragment it.
    pub dont_fragment: bool,
    /// Whether it is a fragment and not the last one.
    pub more_fragments: bool,
    /// Where a fragment belongs, in bytes.
    pub fragment_offset: usize,
    /// Source and destination port, where the protocol has them and this packet shows them.
    pub ports: Option<(u16, u16)>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
}

impl IpPacket {
    /// Read a packet up to its ports.
    ///
    /// The IPv4 checksum is not verified: the kernel did that, and inside a tunnel the ICV has.
    ///
    /// # Errors
    /// Another version than 4 or 6, or a length that does not fit the bytes that are there.
    pub fn read(packet: &[u8]) -> Result<Self, Malformed> {
        match version(packet) {
            4 => Self::read_ipv4(packet),
            6 => Self::read_ipv6(packet),
            _ => Err(Malformed),
        }
    }

    /// Whether this is a part of a larger packet.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset > 0
    }

    fn read_ipv4(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(Malformed)?;
        let header_length = usize::from(header[0] & 0x0F) * 4;
        let total_length = usize::from(word(header, 2));
        if header_length < IPV4_HEADER || total_length < header_length {
            return Err(Malformed);
        }
        let upper = packet.get(header_length..total_length).ok_or(Malformed)?;
        let flags = word(header, 6);
        let fragment_offset = usize::from(flags & FRAGMENT_OFFSET_MASK) * 8;
        let (ports, icmp) = transport(upper, header[9], fragment_offset);
        let address = |at: usize| {
            let octets: [u8; 4] = std::array::from_fn(|index| header[at + index]);
            IpAddr::from(octets)
        };
        Ok(Self {
            source: address(12),
            destination: address(16),
            protocol: header[9],
            header_length,
            total_length,
            traffic_class: header[1],
            dont_fragment: flags & DONT_FRAGMENT != 0,
            more_fragments: flags & MORE_FRAGMENTS != 0,
            fragment_offset,
            ports,
            icmp,
        })
    }

    fn read_ipv6(packet: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(Malformed)?;
        let total_length = IPV6_HEADER + usize::from(word(header, 4));
        let upper = packet.get(IPV6_HEADER..total_length).ok_or(Malformed)?;
        let (protocol, fragment, skipped) = skip_extension_headers(upper, header[6])?;
        let fragment_offset = usize::from(fragment & IPV6_FRAGMENT_OFFSET_MASK);
        let (ports, icmp) = transport(&upper[skipped..], protocol, fragment_offset);
        let address = |at: usize| {
            let octets: [u8; 16] = std::array::from_fn(|index| header[at + index]);
            IpAddr::from(octets)
        };
        Ok(Self {
            source: address(8),
            destination: address(24),
            protocol,
            header_length: IPV6_HEADER + skipped,
            total_length,
            traffic_class: (word(header, 0) >> 4) as u8,
            dont_fragment: true,
            more_fragments: fragment & IPV6_MORE_FRAGMENTS != 0,
            fragment_offset,
            ports,
            icmp,
        })
    }
}

/// The version that the first four bits say; 0 for no bytes.
#[must_use]
pub fn version(packet: &[u8]) -> u8 {
    packet.first().map_or(0, |first| first >> 4)
}

/// The 16-bit number at `at`, which must be within `data`.
#[must_use]
pub fn word(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

/// Write the 16-bit number at `at`, which must be within `data`.
pub fn set_word(data: &mut [u8], at: usize, value: u16) {
    data[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The transport protocol, the offset field of a fragment header (0 without one), and the bytes before the
/// transport (RFC 8200 section 4).
///
/// Behind a fragment header that is not the first fragment's there is only data, so reading ends there.
fn skip_extension_headers(upper: &[u8], first: u8) -> Result<(u8, u16, usize), Malformed> {
    let (mut header, mut fragment, mut at) = (first, 0, 0);
    for _ in 0..MAX_EXTENSION_HEADERS {
        let length = match header {
            FRAGMENT => 8,
            // Its length counts 4-byte units, less two (RFC 4302 section 2.2).
            AUTHENTICATION => usize::from(*upper.get(at + 1).ok_or(Malformed)?) * 4 + 8,
            _ if is_option_header(header) => usize::from(*upper.get(at + 1).ok_or(Malformed)?) * 8 + 8,
            _ => return Ok((header, fragment, at)),
        };
        let content = upper.get(at..at + length).ok_or(Malformed)?;
        at += length;
        if header == FRAGMENT {
            fragment = word(content, 2);
            if fragment & IPV6_FRAGMENT_OFFSET_MASK != 0 {
                return Ok((content[0], fragment, at));
            }
        }
        header = content[0];
    }
    Err(Malformed)
}

type Transport = (Option<(u16, u16)>, Option<(u8, u8)>);

/// The ports, or the ICMP type and code, where this packet shows them.
fn transport(upper: &[u8], protocol: u8, fragment_offset: usize) -> Transport {
    match *upper {
        [a, b, c, d, ..] if fragment_offset == 0 && has_ports(protocol) => {
            (Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))), None)
        }
        [kind, code, ..] if fragment_offset == 0 && (protocol == ICMP || protocol == ICMPV6) => {
            (None, Some((kind, code)))
        }
        _ => (None, None),
    }
}

// ---------------------------------------------------------------------------------- checksums

/// The 32-bit words of `data` added up, in the order of the host; zeroes fill the last one up.
#[expect(clippy::inline_always, reason = "it is compiled for the instructions of who calls it")]
#[inline(always)]
pub(crate) fn add_words(data: &[u8]) -> u64 {
    let (pairs, rest) = data.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let both = |pair: [u8; 8]| {
        let pair = u64::from_ne_bytes(pair);
        (pair & u64::from(u32::MAX)) + (pair >> 32)
    };
    pairs.iter().map(|pair| both(*pair)).sum::<u64>() + both(last)
}

/// The same, of twice as many words at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(crate) fn add_words_by_avx2(data: &[u8]) -> u64 {
    add_words(data)
}

/// A sum of 16-bit words before its carries are folded in (RFC 1071).
///
/// Pieces of an even length may be added in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Add the 16-bit words of `data`, an odd last byte standing in front of a zero.
    #[must_use]
    pub fn with(self, data: &[u8]) -> Self {
        // In the order of the host, which a sum may be in until its end (RFC 1071 section 2): no word is turned
        // round, so that many are added at once.
        let sum = Self(sys::add_words(data)).folded();
        Self(self.0 + u64::from(u16::from_be(sum)))
    }

    /// Add one number of at most 32 bits.
    #[must_use]
    pub const fn add_number(self, number: u32) -> Self {
        Self(self.0 + number as u64)
    }

    /// The 16-bit ones' complement sum. A sum of 0 is 65535 unless all was zero.
    #[must_use]
    pub const fn folded(self) -> u16 {
        let mut total = self.0;
        while total > 0xFFFF {
            total = (total & 0xFFFF) + (total >> 16);
        }
        total as u16
    }

    /// The internet checksum of what was added, whose own checksum field is zero.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The checksum `old` after a 16-bit word of its data changed (RFC 1624 equation 3).
#[must_use]
pub const fn adjust_checksum(old: u16, before: u16, after: u16) -> u16 {
    Sum((!old) as u64 + (!before) as u64 + after as u64).checksum()
}

/// What the checksum of UDP, TCP and ICMPv6 covers of the IP header (RFC 768, RFC 8200 section 8.1).
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Sum {
    let sum = Sum::default().add_number(u32::from(protocol)).add_number(length as u32);
    [source, destination].iter().fold(sum, |sum, address| match address {
        IpAddr::V4(address) => sum.with(&address.octets()),
        IpAddr::V6(address) => sum.with(&address.octets()),
    })
}

// -------------------------------------------------------------------------------- DSCP and ECN

/// DSCP and ECN of a packet as one byte.
///
/// # Errors
/// There are not two bytes.
pub fn traffic_class(packet: &[u8]) -> Result<u8, Malformed> {
    let [first, second, ..] = *packet else { return Err(Malformed) };
    Ok(if first >> 4 == 6 { first << 4 | second >> 4 } else { second })
}

/// Write DSCP and ECN in place and mend the IPv4 checksum; `packet` has at least 20 bytes.
pub fn set_traffic_class(packet: &mut [u8], value: u8) {
    let before = word(packet, 0);
    if before >> 12 == 6 {
        set_word(packet, 0, before & 0xF00F | u16::from(value) << 4);
        return;
    }
    let after = before & 0xFF00 | u16::from(value);
    set_word(packet, 0, after);
    let mended = adjust_checksum(word(packet, IPV4_CHECKSUM_AT), before, after);
    set_word(packet, IPV4_CHECKSUM_AT, mended);
}

// ----------------------------------------------------------------------------------- building

/// Append an IP header without options for a payload of `length` bytes, its checksum included: DF, no
/// identification, traffic class 0.
///
/// # Errors
/// The addresses are of two families, or the packet would be too long.
pub fn append_header(
    out: &mut Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> Result<(), Malformed> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0; IPV4_HEADER];
            header[0] = 0x45;
            set_word(&mut header, 2, u16::try_from(IPV4_HEADER + length).map_err(|_| Malformed)?);
            set_word(&mut header, 6, DONT_FRAGMENT);
            header[8] = DEFAULT_TTL;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..].copy_from_slice(&destination.octets());
            let checksum = Sum::default().with(&header).checksum();
            set_word(&mut header, IPV4_CHECKSUM_AT, checksum);
            out.extend_from_slice(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = [0; IPV6_HEADER];
            header[0] = 0x60;
            set_word(&mut header, 4, u16::try_from(length).map_err(|_| Malformed)?);
            header[6] = protocol;
            header[7] = DEFAULT_TTL;
            header[8..24].copy_from_slice(&source.octets());
            header[24..].copy_from_slice(&destination.octets());
            out.extend_from_slice(&header);
        }
        _ => return Err(Malformed),
    }
    Ok(())
}
