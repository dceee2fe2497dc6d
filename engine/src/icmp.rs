//! ICMP and ICMPv6 messages that the engine makes: the answer to an echo request, and "the packet is too big".

use std::net::{IpAddr, Ipv4Addr};

use crate::ip::{
    ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, IpPacket, Malformed, Sum, append_header, pseudo_header, set_word,
};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG_V6: u8 = 2;

const HEADER: usize = 8;
const CHECKSUM_AT: usize = 2;

/// RFC 1812 section 4.3.2.3: as much of the offending packet as fits in 576 bytes, which every host takes.
const MAX_ERROR_V4: usize = 576;
/// RFC 4443 section 3.2: as much as fits in IPv6's minimum MTU.
const MAX_ERROR_V6: usize = 1280;
/// RFC 4443 section 2.1: types below report errors.
const FIRST_INFORMATIONAL_V6: u8 = 128;

/// Append the answer to an echo request; false, and nothing, if the packet is none or a fragment of one.
///
/// # Errors
/// A malformed packet or a wrong ICMP checksum.
pub fn append_echo_answer(out: &mut Vec<u8>, packet: &[u8]) -> Result<bool, Malformed> {
    let ip = IpPacket::read(packet)?;
    let is_ipv4 = ip.source.is_ipv4();
    let (protocol, request, reply) =
        if is_ipv4 { (ICMP, ECHO_REQUEST, ECHO_REPLY) } else { (ICMPV6, ECHO_REQUEST_V6, ECHO_REPLY_V6) };
    if ip.protocol != protocol || ip.is_fragment() {
        return Ok(false);
    }
    let Some((kind, 0)) = ip.icmp else { return Ok(false) };
    if kind != request && kind != reply {
        return Ok(false);
    }
    let message = &packet[ip.header_length..ip.total_length];
    if covered(ip.source, ip.destination, message.len()).with(message).folded() != 0xFFFF
        || message.len() < HEADER
    {
        return Err(Malformed);
    }
    if kind == reply {
        return Ok(false);
    }
    append(out, (ip.destination, ip.source), (reply, 0), &message[4..HEADER], &message[HEADER..])?;
    Ok(true)
}

/// Append the packet that tells the sender of `offending` to send at most `mtu` bytes, IP header included;
/// false, and nothing, where no error may be sent.
///
/// IPv4: destination unreachable, fragmentation needed (RFC 1191 section 4). IPv6: packet too big (RFC 4443
/// section 3.2). Its source is the packet's own destination, which is always of the right family and passes any
/// filter that the packet's answer would pass.
///
/// # Errors
/// A malformed packet.
pub fn append_too_big(out: &mut Vec<u8>, offending: &[u8], mtu: usize) -> Result<bool, Malformed> {
    let ip = IpPacket::read(offending)?;
    if ip.destination.is_multicast() || !may_report(&ip) {
        return Ok(false);
    }
    let ways = (ip.destination, ip.source);
    let [a, b, c, d] = (mtu as u32).to_be_bytes();
    let quote = |most: usize| &offending[..ip.total_length.min(most)];
    if ip.source.is_ipv4() {
        let quote = quote(MAX_ERROR_V4 - IPV4_HEADER - HEADER);
        append(out, ways, (DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED), &[0, 0, c, d], quote)?;
    } else {
        let quote = quote(MAX_ERROR_V6 - IPV6_HEADER - HEADER);
        append(out, ways, (PACKET_TOO_BIG_V6, 0), &[a, b, c, d], quote)?;
    }
    Ok(true)
}

/// Whether an ICMP error may answer this packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
///
/// Never to an ICMP error, to a fragment but the first, or to a source that is not one host. IPv6 lets packet
/// too big answer a multicast destination, IPv4 does not.
fn may_report(ip: &IpPacket) -> bool {
    let broadcast = IpAddr::from(Ipv4Addr::BROADCAST);
    if ip.fragment_offset != 0
        || ip.source.is_multicast()
        || ip.source.is_unspecified()
        || ip.source == broadcast
    {
        return false;
    }
    if ip.source.is_ipv4() {
        // RFC 792: types that report an error.
        let is_error = ip.protocol == ICMP && matches!(ip.icmp, Some((3 | 4 | 5 | 11 | 12, _)));
        return !(is_error || ip.destination == broadcast || ip.destination.is_multicast());
    }
    !(ip.protocol == ICMPV6 && ip.icmp.is_some_and(|(kind, _)| kind < FIRST_INFORMATIONAL_V6))
}

/// Append a message of the addresses' family in its IP packet: type and code, four bytes, and the rest.
fn append(
    out: &mut Vec<u8>,
    (source, destination): (IpAddr, IpAddr),
    (kind, code): (u8, u8),
    four: &[u8],
    rest: &[u8],
) -> Result<(), Malformed> {
    let protocol = if source.is_ipv4() { ICMP } else { ICMPV6 };
    append_header(out, source, destination, protocol, HEADER + rest.len())?;
    let start = out.len();
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(four);
    out.extend_from_slice(rest);
    let message = &mut out[start..];
    let checksum = covered(source, destination, message.len()).with(message).checksum();
    set_word(message, CHECKSUM_AT, checksum);
    Ok(())
}

/// What the checksum covers besides the message: in IPv6 the pseudo-header, in IPv4 nothing.
fn covered(source: IpAddr, destination: IpAddr, length: usize) -> Sum {
    if source.is_ipv4() { Sum::default() } else { pseudo_header(source, destination, ICMPV6, length) }
}
