//! The security associations.

use std::net::IpAddr;

use crate::esp::{Error, Keys, Opener, SEED_LENGTH, Sealer, Suite};
use crate::interface::{Endpoint, Notice, PolicyRow, SaStats, TunnelId};
use crate::mtu::{believed, inner_mtu, outer_headers};
use crate::replay::ReplayWindow;
use crate::spd::{Mapping, Row, Selector, SelectorTable};

/// Ours: numbers before the end at which the SA should be replaced; 5 s of packets at 200,000 a second.
const SEQUENCE_RESERVE: u64 = 1 << 20;

/// A CHILD_SA (IKEv2) or IPsec SA pair (IKEv1), both directions, without its keys.
#[derive(Clone, Debug)]
pub struct Child {
    /// Whose it is.
    pub tunnel: TunnelId,
    /// Of which policy.
    pub mapping: Mapping,
    /// The SPI that we chose and receive on.
    pub spi_in: u32,
    /// The SPI that the peer chose.
    pub spi_out: u32,
    /// The algorithms.
    pub suite: Suite,
    /// What it carries, on our side.
    pub ts_local: Box<[Selector]>,
    /// What it carries, on the peer's side.
    pub ts_remote: Box<[Selector]>,
    /// Our address and UDP port on its path.
    pub local: Endpoint,
    /// The peer's address and UDP port.
    pub remote: Endpoint,
    /// Whether ESP travels in UDP (RFC 3948) or as IP protocol 50.
    pub udp: bool,
    /// Bytes in each direction at which it should be replaced.
    pub soft_bytes: Option<u64>,
    /// Bytes in each direction after which it carries nothing more.
    pub hard_bytes: Option<u64>,
    /// Packets of its anti-replay window.
    pub replay_window: usize,
}

/// Why an SA was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such tunnel.
    Tunnel,
    /// An SA receives on this SPI.
    Known,
    /// The window has no possible size.
    Window,
    /// The keys do not fit the algorithms.
    Keys(Error),
}

/// The two ESP SAs of one CHILD_SA, with everything that changes while they carry packets.
///
/// `sequence` is the number last sent. `part` is what it carries of its mapping's outbound packets where the peer
/// did not agree to all of them. `limit` is what the path leaves for an inner packet, `room` for an ESP packet.
/// `awaited` says whether it is not sent on before its first packet came, or IKE says so.
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was told, and what waits, do not depend on each other"
)]
pub(crate) struct SaPair {
    pub(crate) child: Child,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) window: ReplayWindow,
    pub(crate) allowed: SelectorTable,
    pub(crate) part: Option<SelectorTable>,
    pub(crate) by_port: bool,
    pub(crate) sequence: u64,
    sequence_end: u64,
    pub(crate) limit: usize,
    pub(crate) room: usize,
    pub(crate) stats: SaStats,
    pub(crate) awaited: bool,
    moved_told: Option<Endpoint>,
    soft_told: bool,
    hard_told: bool,
}

impl SaPair {
    pub(crate) fn new(
        child: Child,
        keys_in: Keys<'_>,
        keys_out: Keys<'_>,
        seed: &[u8; SEED_LENGTH],
        path_mtu: usize,
        own: &[IpAddr],
    ) -> Result<Self, Refused> {
        let suite = child.suite;
        let carried = Row {
            mapping: child.mapping,
            sources: child.ts_remote.clone(),
            destinations: child.ts_local.clone(),
        };
        let mut pair = Self {
            sealer: Sealer::new(suite, keys_out, child.spi_out, seed).map_err(Refused::Keys)?,
            opener: Opener::new(suite, keys_in).map_err(Refused::Keys)?,
            window: ReplayWindow::new(child.replay_window).ok_or(Refused::Window)?,
            allowed: SelectorTable::inbound(Box::new([carried]), own.into()),
            part: None,
            by_port: child.ts_local.iter().chain(&child.ts_remote).any(Selector::names_ports),
            sequence: 0,
            // It never wraps (RFC 4303 section 3.3.3).
            sequence_end: if suite.esn() { u64::MAX } else { u32::MAX.into() },
            limit: 0,
            room: 0,
            stats: SaStats::default(),
            awaited: false,
            moved_told: None,
            soft_told: false,
            hard_told: false,
            child,
        };
        pair.resize(path_mtu);
        Ok(pair)
    }

    /// Find out whether it carries its whole mapping: the peer may have narrowed it.
    pub(crate) fn compare(&mut self, rows: &[PolicyRow]) {
        let child = &self.child;
        let narrowed =
            |row: &PolicyRow| !(all_in(&row.local, &child.ts_local) && all_in(&row.remote, &child.ts_remote));
        if rows.iter().any(|row| row.mapping == child.mapping && narrowed(row)) {
            let row = Row {
                mapping: child.mapping,
                sources: child.ts_local.clone(),
                destinations: child.ts_remote.clone(),
            };
            self.part = Some(SelectorTable::outbound(Box::new([row])));
        }
    }

    /// The path carries datagrams of `path_mtu` bytes.
    pub(crate) fn resize(&mut self, path_mtu: usize) {
        let (udp, is_ipv6) = (self.child.udp, self.child.remote.address.is_ipv6());
        let path_mtu = believed(path_mtu, is_ipv6);
        self.limit = inner_mtu(path_mtu, self.child.suite, udp, is_ipv6);
        self.room = path_mtu - outer_headers(is_ipv6, udp);
    }

    /// Whether the SA carries nothing more.
    pub(crate) fn is_used_up(&self) -> bool {
        self.has_carried(self.child.hard_bytes) || self.sequence >= self.sequence_end
    }

    /// Whether one of its limits is near.
    pub(crate) fn should_be_replaced(&self) -> bool {
        self.has_carried(self.child.soft_bytes)
            || self.sequence.max(self.window.highest()) >= self.sequence_end - SEQUENCE_RESERVE
    }

    fn has_carried(&self, bytes: Option<u64>) -> bool {
        bytes.is_some_and(|bytes| self.stats.bytes_out >= bytes || self.stats.bytes_in >= bytes)
    }

    /// How many of `count` packets of `length` bytes may still leave: not one beyond a limit.
    ///
    /// Once a packet did not fit, no smaller one follows.
    pub(crate) fn sendable(&self, count: usize, length: usize) -> usize {
        if self.hard_told {
            return 0;
        }
        let mut left = self.sequence_end - self.sequence;
        if let Some(hard) = self.child.hard_bytes {
            left = left.min(hard.saturating_sub(self.stats.bytes_out) / length as u64);
        }
        usize::try_from(left).map_or(count, |left| left.min(count))
    }

    /// Send from `local` to `remote` from now on.
    pub(crate) fn move_to(&mut self, local: Endpoint, remote: Endpoint, path_mtu: usize) {
        self.child.local = local;
        self.child.remote = remote;
        self.moved_told = None;
        self.resize(path_mtu);
    }

    /// Say once that the peer sends from elsewhere; only for its newest packet (RFC 3948 section 3.1).
    pub(crate) fn tell_moved(&mut self, sender: Endpoint, notices: &mut Vec<Notice>) {
        if sender.port == 0 || !self.child.udp || self.moved_told == Some(sender) {
            return;
        }
        self.moved_told = Some(sender);
        let (tunnel, spi_in, local) = (self.child.tunnel, self.child.spi_in, self.child.local);
        notices.push(Notice::PeerMoved { tunnel, spi_in, local, remote: sender });
    }

    /// Say once that it should be replaced, if so.
    pub(crate) fn tell_soft(&mut self, notices: &mut Vec<Notice>) {
        if !self.soft_told && self.should_be_replaced() {
            self.soft_told = true;
            notices.push(Notice::SoftLimit { tunnel: self.child.tunnel, spi_in: self.child.spi_in });
        }
    }

    /// Say once that it is used up.
    pub(crate) fn tell_hard(&mut self, notices: &mut Vec<Notice>) {
        if !self.hard_told {
            self.hard_told = true;
            notices.push(Notice::HardLimit { tunnel: self.child.tunnel, spi_in: self.child.spi_in });
        }
    }

    /// Say once that it should be replaced, and once that it is used up.
    pub(crate) fn tell_limits(&mut self, notices: &mut Vec<Notice>, used_up: bool) {
        if !self.soft_told {
            self.soft_told = true;
            notices.push(Notice::SoftLimit { tunnel: self.child.tunnel, spi_in: self.child.spi_in });
        }
        if used_up {
            self.tell_hard(notices);
        }
    }
}

fn all_in(wanted: &[Selector], agreed: &[Selector]) -> bool {
    wanted.iter().all(|one| agreed.iter().any(|selector| selector.covers(one)))
}
