//! How large an inner packet may be so that its ESP packet fits the path.

use crate::esp::{Suite, TRAILER_LENGTH};
use crate::ip::{IPV4_HEADER, IPV6_HEADER};

const UDP_HEADER: usize = 8;

/// The least path MTU that is believed for IPv4: every host takes 576 bytes (RFC 791). A smaller number is a
/// forgery or a mistake, and following it would stop the traffic.
pub const MINIMUM_IPV4: usize = 576;
/// The same for IPv6: every link carries 1280 bytes (RFC 8200 section 5).
pub const MINIMUM_IPV6: usize = 1280;

/// Bytes before the ESP header: IP and, with `udp`, UDP (RFC 3948).
#[must_use]
pub const fn outer_headers(is_ipv6: bool, udp: bool) -> usize {
    (if is_ipv6 { IPV6_HEADER } else { IPV4_HEADER }) + if udp { UDP_HEADER } else { 0 }
}

/// `path_mtu`, but not less than what every path of that family carries.
#[must_use]
pub fn believed(path_mtu: usize, is_ipv6: bool) -> usize {
    path_mtu.max(if is_ipv6 { MINIMUM_IPV6 } else { MINIMUM_IPV4 })
}

/// The longest inner packet whose ESP packet, in one datagram, has at most `path_mtu` bytes, which must be
/// believed and count from the outer IP header.
#[must_use]
pub const fn inner_mtu(path_mtu: usize, suite: Suite, udp: bool, is_ipv6: bool) -> usize {
    let room = path_mtu - outer_headers(is_ipv6, udp) - suite.overhead();
    room - room % suite.alignment() - TRAILER_LENGTH
}
