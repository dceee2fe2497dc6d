//! Selectors applied to packets: which mapping carries one, and whether an SA may have carried it.
//!
//! The answer for a pair of addresses is found once and remembered. Only the first packet of a flow is decoded
//! and compared with every row, unless a row names a protocol or ports.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::ip::{ICMP, ICMPV6, IpPacket, Malformed, version};

/// Ours: address pairs remembered for one table; beyond it all are forgotten and found again.
const MAXIMUM_FLOWS: usize = 4096;

/// The index of a tunnel's policy.
pub type Mapping = u32;

/// One side of a traffic selector pair (RFC 7296 section 3.13.1): an inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
    ports: (u16, u16),
}

/// The ports of a selector that names none.
pub const ANY_PORT: (u16, u16) = (0, u16::MAX);

impl Selector {
    /// The addresses from `start` to `end`, a protocol (0: any), and ports from the first to the second.
    ///
    /// None if the addresses are of two families, or the range ends before it begins.
    #[must_use]
    pub fn new(start: IpAddr, end: IpAddr, protocol: u8, ports: (u16, u16)) -> Option<Self> {
        let possible = start.is_ipv4() == end.is_ipv4() && start <= end;
        possible.then_some(Self { start, end, protocol, ports })
    }

    /// Whether it names ports.
    #[must_use]
    pub fn names_ports(&self) -> bool {
        self.ports != ANY_PORT
    }

    /// Whether it takes some packets between two addresses and not others.
    fn looks_beyond_addresses(&self) -> bool {
        self.protocol != 0 || self.names_ports()
    }

    fn is_within(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    /// Whether every packet of `other` is one of ours.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.is_within(other.start)
            && self.is_within(other.end)
            && (self.protocol == 0 || self.protocol == other.protocol)
            && self.ports.0 <= other.ports.0
            && other.ports.0 <= other.ports.1
            && other.ports.1 <= self.ports.1
    }

    /// Whether one side of a packet, with that side's address and port, is ours.
    ///
    /// A later fragment shows no ports: only a selector of all ports holds it (RFC 4301 section 7.1). For ICMP,
    /// the port range holds type and code as one number (RFC 7296 section 3.13.1).
    fn holds(&self, ip: &IpPacket, address: IpAddr, port: Option<u16>) -> bool {
        if !self.is_within(address) || (self.protocol != 0 && self.protocol != ip.protocol) {
            return false;
        }
        if !self.names_ports() {
            return true;
        }
        if ip.fragment_offset != 0 {
            return false;
        }
        let port = match ip.icmp {
            Some((kind, code)) if self.protocol == ICMP || self.protocol == ICMPV6 => {
                Some(u16::from_be_bytes([kind, code]))
            }
            _ => port,
        };
        port.is_some_and(|port| self.ports.0 <= port && port <= self.ports.1)
    }
}

/// Packets from `sources` to `destinations` belong to `mapping`.
#[derive(Clone, Debug)]
pub struct Row {
    /// The mapping.
    pub mapping: Mapping,
    /// Where its packets come from.
    pub sources: Box<[Selector]>,
    /// Where its packets go to.
    pub destinations: Box<[Selector]>,
}

impl Row {
    fn holds(&self, ip: &IpPacket) -> bool {
        let any = |selectors: &[Selector], address, port| {
            selectors.iter().any(|selector| selector.holds(ip, address, port))
        };
        any(&self.sources, ip.source, ip.ports.map(|ports| ports.0))
            && any(&self.destinations, ip.destination, ip.ports.map(|ports| ports.1))
    }

    fn looks_beyond_addresses(&self) -> bool {
        self.sources.iter().chain(&self.destinations).any(Selector::looks_beyond_addresses)
    }
}

/// Source and destination of a packet as its header has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Of an IPv4 packet.
    V4([u8; 8]),
    /// Of an IPv6 packet.
    V6([u8; 32]),
}

impl Flow {
    /// The flow of a packet; None if it is too short to have addresses or of no version.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        match version(packet) {
            4 => packet.get(12..20)?.first_chunk().copied().map(Self::V4),
            6 => packet.get(8..40)?.first_chunk().copied().map(Self::V6),
            _ => None,
        }
    }

    /// The flow between two addresses; None if they are of two families.
    #[must_use]
    pub fn between(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut both = [0; 8];
                both[..4].copy_from_slice(&source.octets());
                both[4..].copy_from_slice(&destination.octets());
                Some(Self::V4(both))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&source.octets());
                both[16..].copy_from_slice(&destination.octets());
                Some(Self::V6(both))
            }
            _ => None,
        }
    }
}

/// What a table says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to this mapping.
    Mapping(Mapping),
    /// No row covers it, or it is refused.
    Nothing,
    /// It is one of the peer's health probes.
    Probed,
}

/// Rows in order of preference, and what they say about each flow.
///
/// A table for what comes out of a tunnel refuses packets from addresses that no host may send from, or from one
/// of our own, before they reach the kernel.
#[derive(Debug)]
pub struct SelectorTable {
    rows: Box<[Row]>,
    refuses_martians: bool,
    own: Box<[IpAddr]>,
    keep: Option<Box<[IpAddr]>>,
    probed: Option<Flow>,
    by_address: bool,
    flows: HashMap<Flow, Verdict>,
}

impl SelectorTable {
    /// The table of what enters a tunnel.
    #[must_use]
    pub fn outbound(rows: Box<[Row]>) -> Self {
        let by_address = !rows.iter().any(Row::looks_beyond_addresses);
        Self {
            rows,
            refuses_martians: false,
            own: Box::default(),
            keep: None,
            probed: None,
            by_address,
            flows: HashMap::new(),
        }
    }

    /// The table of what leaves a tunnel, and may not come from one of our `own` addresses.
    #[must_use]
    pub fn inbound(rows: Box<[Row]>, own: Box<[IpAddr]>) -> Self {
        Self { refuses_martians: true, own, ..Self::outbound(rows) }
    }

    /// Whether its answers depend on the addresses alone: where a row names a protocol or ports, two packets
    /// between the same hosts may differ.
    #[must_use]
    pub const fn by_address(&self) -> bool {
        self.by_address
    }

    /// From now on only packets from or to `keep` are of any mapping; None ends the interruption.
    pub fn interrupt(&mut self, keep: Option<Box<[IpAddr]>>) {
        self.keep = keep;
        self.flows.clear();
    }

    /// From now on packets of this flow are the peer's probes.
    pub fn tell_probes(&mut self, flow: Option<Flow>) {
        self.probed = flow;
        self.flows.clear();
    }

    /// What a packet is: as remembered of its flow, else as its rows decide.
    ///
    /// # Errors
    /// A malformed packet of a flow that is not remembered.
    pub fn lookup(&mut self, packet: &[u8]) -> Result<Verdict, Malformed> {
        match Flow::of(packet).and_then(|flow| self.flows.get(&flow)) {
            Some(known) => Ok(*known),
            None => self.decide(packet),
        }
    }

    /// What the rows say of a packet; remembered where it depends on the addresses alone.
    ///
    /// # Errors
    /// A malformed packet.
    pub fn decide(&mut self, packet: &[u8]) -> Result<Verdict, Malformed> {
        let flow = Flow::of(packet).ok_or(Malformed)?;
        let ip = IpPacket::read(packet)?;
        let row = self.rows.iter().find(|row| row.holds(&ip));
        let verdict = match row {
            Some(row) if !self.is_refused(&ip) => {
                if self.probed == Some(flow) {
                    Verdict::Probed
                } else {
                    Verdict::Mapping(row.mapping)
                }
            }
            _ => Verdict::Nothing,
        };
        if self.by_address {
            if self.flows.len() >= MAXIMUM_FLOWS {
                self.flows.clear();
            }
            self.flows.insert(flow, verdict);
        }
        Ok(verdict)
    }

    fn is_refused(&self, ip: &IpPacket) -> bool {
        let kept = |keep: &[IpAddr]| keep.contains(&ip.source) || keep.contains(&ip.destination);
        if self.keep.as_deref().is_some_and(|keep| !kept(keep)) {
            return true;
        }
        self.refuses_martians && (self.own.contains(&ip.source) || is_martian(ip))
    }
}

/// Whether no router may forward this packet because of its addresses (RFC 1812 section 5.3.7).
#[must_use]
pub fn is_martian(ip: &IpPacket) -> bool {
    let (source, destination) = (ip.source, ip.destination);
    source.is_multicast()
        || source.is_loopback()
        || source.is_unspecified()
        || destination.is_loopback()
        || source == IpAddr::from(Ipv4Addr::BROADCAST)
}
