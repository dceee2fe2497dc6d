//! Making inner packets fit: the MSS of a TCP SYN, and IPv4 fragmentation before ESP (RFC 4301 section 8).

use crate::ip::{
    FRAGMENT_OFFSET_MASK, IPV4_CHECKSUM_AT, IPV4_HEADER, IPV6_HEADER, IpPacket, MORE_FRAGMENTS, Malformed,
    Sum, TCP, adjust_checksum, is_option_header, set_word, version, word,
};

const TCP_HEADER: usize = 20;
const TCP_FLAGS_AT: usize = 13;
const TCP_CHECKSUM_AT: usize = 16;
const TCP_SYN: u8 = 0x02;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LENGTH: usize = 4;

/// RFC 791: the option goes into every fragment if its highest bit is set.
const IPV4_OPTION_COPIED: u8 = 0x80;
/// Bytes of the longest IPv4 header.
const LONGEST_IPV4_HEADER: usize = 60;

/// A quick look, which spares most packets the long one: false only for what `clamp_mss` would not change.
#[must_use]
pub fn may_be_syn(packet: &[u8]) -> bool {
    let is_ipv4 = version(packet) == 4;
    let Some(&protocol) = packet.get(if is_ipv4 { 9 } else { 6 }) else { return false };
    let flags_at = match (is_ipv4, protocol) {
        (true, TCP) => usize::from(packet[0] & 0x0F) * 4 + TCP_FLAGS_AT,
        (false, TCP) => IPV6_HEADER + TCP_FLAGS_AT,
        (true, _) => return false,
        (false, header) => return is_option_header(header),
    };
    packet.get(flags_at).is_some_and(|flags| flags & TCP_SYN != 0)
}

/// Give a TCP SYN an MSS that promises no segment which makes a packet longer than `limit` bytes, and none of
/// more than `most` bytes, where that is given.
///
/// Anything else stays as it is, and so does a SYN whose MSS is small enough or not stated: then 536 or 1220
/// bytes hold, which fit.
///
/// # Errors
/// A malformed packet.
pub fn clamp_mss(packet: &mut [u8], limit: usize, most: Option<u16>) -> Result<(), Malformed> {
    let ip = IpPacket::read(packet)?;
    let tcp = ip.header_length;
    if ip.protocol != TCP || ip.fragment_offset != 0 || ip.total_length < tcp + TCP_HEADER {
        return Ok(());
    }
    if packet[tcp + TCP_FLAGS_AT] & TCP_SYN == 0 {
        return Ok(());
    }
    let Some(at) = mss_offset(&packet[..ip.total_length], tcp) else { return Ok(()) };
    let header = if ip.source.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let room = u16::try_from(limit.saturating_sub(header + TCP_HEADER)).unwrap_or(u16::MAX);
    let (before, after) = (word(packet, at), most.map_or(room, |most| most.min(room)));
    if before <= after {
        return Ok(());
    }
    set_word(packet, at, after);
    // An option may begin at an odd offset; the words that the checksum adds then are its bytes swapped.
    let odd = (at - tcp) % 2 != 0;
    let summed = |value: u16| if odd { value.swap_bytes() } else { value };
    let mended = adjust_checksum(word(packet, tcp + TCP_CHECKSUM_AT), summed(before), summed(after));
    set_word(packet, tcp + TCP_CHECKSUM_AT, mended);
    Ok(())
}

/// Where the two bytes of the MSS option's value are (RFC 9293 section 3.2).
fn mss_offset(packet: &[u8], tcp: usize) -> Option<usize> {
    let end = packet.len().min(tcp + usize::from(packet[tcp + 12] >> 4) * 4);
    let mut at = tcp + TCP_HEADER;
    while at + 1 < end {
        let (kind, length) = (packet[at], usize::from(packet[at + 1]));
        match kind {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            OPTION_MSS => return (length == OPTION_MSS_LENGTH && at + length <= end).then_some(at + 2),
            _ if length < 2 => return None,
            _ => at += length,
        }
    }
    None
}

/// Cut an IPv4 packet without DF into fragments of at most `limit` bytes (RFC 791 section 3.2).
///
/// `take` gets the header and the data of each in order. A fragment may be fragmented again.
///
/// # Errors
/// A malformed packet, or options that leave no room for data; `take` has not been called then.
pub fn fragment_ipv4(
    packet: &[u8],
    limit: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> Result<(), Malformed> {
    let ip = IpPacket::read(packet)?;
    let (header_length, total) = (ip.header_length, ip.total_length);
    let room = limit.saturating_sub(header_length) / 8 * 8;
    if room == 0 || !ip.source.is_ipv4() {
        return Err(Malformed);
    }
    let flags = word(packet, 6);
    let (mut header, mut used) = ([0; LONGEST_IPV4_HEADER], header_length);
    header[..used].copy_from_slice(&packet[..used]);
    for (index, data) in packet[header_length..total].chunks(room).enumerate() {
        let start = index * room;
        if index == 1 {
            (header, used) = header_of_later_fragments(&packet[..header_length]);
        }
        let is_last = header_length + start + room >= total;
        let more = if is_last { flags & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let offset = (flags & FRAGMENT_OFFSET_MASK) + (start / 8) as u16;
        set_word(&mut header, 2, (used + data.len()) as u16);
        set_word(&mut header, 6, more | offset);
        set_word(&mut header, IPV4_CHECKSUM_AT, 0);
        let checksum = Sum::default().with(&header[..used]).checksum();
        set_word(&mut header, IPV4_CHECKSUM_AT, checksum);
        take(&header[..used], data);
    }
    Ok(())
}

/// The same header without the options that only the first fragment carries, and its length.
fn header_of_later_fragments(header: &[u8]) -> ([u8; LONGEST_IPV4_HEADER], usize) {
    let mut kept = [0; LONGEST_IPV4_HEADER];
    kept[..IPV4_HEADER].copy_from_slice(&header[..IPV4_HEADER]);
    let (mut used, mut at) = (IPV4_HEADER, IPV4_HEADER);
    while at < header.len() && header[at] != OPTION_END {
        if header[at] == OPTION_NOP {
            at += 1;
            continue;
        }
        let length = header.get(at + 1).map_or(0, |length| usize::from(*length));
        if length < 2 || at + length > header.len() {
            break;
        }
        if header[at] & IPV4_OPTION_COPIED != 0 {
            kept[used..used + length].copy_from_slice(&header[at..at + length]);
            used += length;
        }
        at += length;
    }
    used = used.next_multiple_of(4);
    kept[0] = 0x40 | (used / 4) as u8;
    (kept, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_to_be_a_packet_is_no_syn() {
        for first in [0x00, 0x45, 0x60] {
            for length in 0..34 {
                let mut packet = vec![0; length];
                if let Some(place) = packet.first_mut() {
                    *place = first;
                }
                if let Some(protocol) = packet.get_mut(if first == 0x45 { 9 } else { 6 }) {
                    *protocol = TCP;
                }
                assert!(!may_be_syn(&packet), "{first:#x}, {length} bytes");
            }
        }
    }
}
