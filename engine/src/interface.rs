//! What an engine is given and what it says: `vpnd.datapath.interface`, without input and output.

use std::net::IpAddr;

use crate::spd::{Mapping, Selector};

/// Why a packet went no further; every drop is counted under one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Not an IP packet, not an ESP packet, or padding that breaks RFC 4303 section 2.4.
    Malformed,
    /// Inbound: unknown SPI. Outbound: no SA for the packet's selectors yet.
    NoSa,
    /// Sequence number repeated or older than the window (RFC 4303 section 3.4.3).
    Replay,
    /// The ICV or AEAD tag does not verify.
    Integrity,
    /// Decrypted, but outside its SA's selectors (RFC 4301 section 5.2), or not for any mapping.
    Policy,
    /// DF is set and the packet does not fit; the sender was told (RFC 4301 section 8).
    TooBig,
    /// The SA reached the end of its bytes or sequence numbers.
    Lifetime,
    /// Not-ECT inside and CE outside (RFC 6040 section 4.2).
    Ecn,
    /// The SA is not in use along the path the packet came on.
    DecryptedBadPath,
    /// The kernel refused to send: no route, no buffer.
    Send,
}

/// Counters, one for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Drop::Send as usize + 1]);

impl Drops {
    /// Count some packets.
    pub fn add(&mut self, reason: Drop, packets: usize) {
        self.0[reason as usize] += packets as u64;
    }

    /// The counters, in the order of the reasons.
    #[must_use]
    pub const fn counts(&self) -> &[u64; Drop::Send as usize + 1] {
        &self.0
    }
}

/// Why packets do not reach a peer (`vpnd.model.unreachable`). Anyone can forge an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// No way to the host or its network.
    Host,
    /// A firewall on the way or at the peer forbids it.
    Prohibited,
    /// A firewall rule of this machine forbids it.
    ForbiddenHere,
}

impl Unreachable {
    /// What a type and code of ICMP mean (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3.1); None where they
    /// are about something else.
    #[must_use]
    pub const fn of_icmp(is_ipv6: bool, kind: u8, code: u8) -> Option<Self> {
        match (is_ipv6, kind, code) {
            (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5 | 6) => Some(Self::Prohibited),
            (false, 3, 3) | (true, 1, 4) => Some(Self::Port),
            (false, 3, _) | (true, 1, _) => Some(Self::Host),
            _ => None,
        }
    }
}

/// A tunnel, by the number that the caller gave it.
pub type TunnelId = u32;

/// What the owner of the engine should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A packet of this mapping waits for an SA that does not exist; said at most once a second for each.
    Acquire {
        /// Whose packet it is.
        tunnel: TunnelId,
        /// Of which policy.
        mapping: Mapping,
        /// The packet's source.
        source: IpAddr,
        /// The packet's destination.
        destination: IpAddr,
        /// The packet's transport protocol.
        protocol: u8,
    },
    /// The SA should be replaced: the end of its bytes or sequence numbers is near.
    SoftLimit {
        /// Whose SA it is.
        tunnel: TunnelId,
        /// The SPI that it receives on.
        spi_in: u32,
    },
    /// The SA carries nothing more: its bytes or sequence numbers are used up.
    HardLimit {
        /// Whose SA it is.
        tunnel: TunnelId,
        /// The SPI that it receives on.
        spi_in: u32,
    },
    /// ESP with an SPI that no SA has came; said at most once a second.
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// Where it came from.
        source: IpAddr,
    },
    /// The first authenticated packet came on this SA, which is not sent on yet: the peer has it installed.
    PeerSends {
        /// Whose SA it is.
        tunnel: TunnelId,
        /// The SPI that it receives on.
        spi_in: u32,
    },
    /// An authenticated, newest packet of this SA came from elsewhere (RFC 3948 section 3.1).
    PeerMoved {
        /// Whose SA it is.
        tunnel: TunnelId,
        /// The SPI that it receives on.
        spi_in: u32,
        /// Our end of its path.
        local: Endpoint,
        /// Where the packet came from.
        remote: Endpoint,
    },
    /// The network says that datagrams to `remote` must fit in `mtu` bytes, IP header included.
    PathMtu {
        /// The peer.
        remote: IpAddr,
        /// The MTU of the path to it.
        mtu: usize,
    },
    /// An IKE message that was sent from the shared UDP socket has not arrived.
    IkeUnreached {
        /// The socket's end of the path.
        local: Endpoint,
        /// Whom it was sent to.
        remote: Endpoint,
        /// What ICMP or the kernel says of it.
        reason: Unreachable,
    },
    /// The TUN of this tunnel was deleted; its descriptor is of no use any more, and is not read.
    TunLost {
        /// Whose TUN it was.
        tunnel: TunnelId,
    },
}

/// Counters of one SA pair since its installation: inner bytes, monotonic times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SaStats {
    /// Packets that came out of it.
    pub packets_in: u64,
    /// Packets that went into it.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// When an authentic packet came last; 0 for never.
    pub last_in: f64,
    /// When a packet left last; 0 for never.
    pub last_out: f64,
}

/// One mapping of a tunnel as the SPD sees it: what may enter and leave through this tunnel.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Its number.
    pub mapping: Mapping,
    /// This side.
    pub local: Box<[Selector]>,
    /// The peer's side.
    pub remote: Box<[Selector]>,
}

/// One end of a path: where an SA's datagrams go, or come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The UDP port; 0 for raw ESP.
    pub port: u16,
}
