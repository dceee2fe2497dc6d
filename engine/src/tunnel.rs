//! What the engine keeps for one tunnel, and the packets that wait for its SAs.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::coalesce::Coalescer;
use crate::interface::{Drops, PolicyRow, TunnelId};
use crate::spd::{Flow, Mapping, Row, SelectorTable};

const DEFAULT_PATH_MTU: usize = 1500;

/// Ours: first packets of a mapping that wait for its SA, enough that a ping or a SYN is not lost.
const WAITING_PACKETS: usize = 16;
const WAITING_BYTES: usize = 64 * 1024;
/// Seconds: as long as an initiator's attempt lasts; nobody wants an older answer.
const WAITING_TIME: f64 = 30.0;
/// Seconds between two notices that a mapping's packets wait.
const ACQUIRE_INTERVAL: f64 = 1.0;

/// Ours: ICMP errors a second for one tunnel, for RFC 1812 section 4.3.2.8 wants a limit.
const ICMP_RATE: f64 = 100.0;
const ICMP_BURST: f64 = 100.0;

/// The first packets of one mapping, oldest first.
#[derive(Debug)]
pub(crate) struct Waiting {
    packets: VecDeque<(f64, Box<[u8]>)>,
    bytes: usize,
    acquire_at: f64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { packets: VecDeque::new(), bytes: 0, acquire_at: f64::NEG_INFINITY }
    }
}

impl Waiting {
    /// Keep a packet if there is room; the old ones go first, by age only.
    pub(crate) fn hold(&mut self, now: f64, packet: &[u8]) -> bool {
        self.expire(now);
        if self.packets.len() >= WAITING_PACKETS || self.bytes + packet.len() > WAITING_BYTES {
            return false;
        }
        self.packets.push_back((now, packet.into()));
        self.bytes += packet.len();
        true
    }

    fn expire(&mut self, now: f64) {
        while let Some((_, packet)) = self.packets.pop_front_if(|(since, _)| *since <= now - WAITING_TIME) {
            self.bytes -= packet.len();
        }
    }

    /// Whether a notice is due; if so, the next is due an interval later.
    pub(crate) fn may_acquire(&mut self, now: f64) -> bool {
        if now < self.acquire_at + ACQUIRE_INTERVAL {
            return false;
        }
        self.acquire_at = now;
        true
    }

    /// All packets that may still be of use.
    pub(crate) fn release(mut self, now: f64) -> impl Iterator<Item = Box<[u8]>> {
        self.expire(now);
        self.packets.into_iter().map(|(_, packet)| packet)
    }
}

/// `rate` events a second on average, `burst` at once.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: f64,
}

impl TokenBucket {
    pub(crate) const fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, tokens: burst, at: 0.0 }
    }

    /// Whether an event may happen now.
    pub(crate) fn take(&mut self, now: f64) -> bool {
        self.tokens = self.burst.min(self.tokens + (now - self.at) * self.rate);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// One tunnel: its policies, its counters and what waits.
///
/// `most` is how many bytes an inner packet has at most, and `mss` a TCP segment, whatever the path carries.
/// `outbound` says which SA, by the SPI that it receives on, carries a mapping.
pub(crate) struct Tunnel {
    pub(crate) path_mtu: usize,
    pub(crate) most: Option<usize>,
    pub(crate) mss: Option<u16>,
    pub(crate) rows: Box<[PolicyRow]>,
    pub(crate) policies: SelectorTable,
    pub(crate) keep: Option<Box<[IpAddr]>>,
    pub(crate) probed: Option<Flow>,
    pub(crate) waiting: HashMap<Mapping, Waiting>,
    pub(crate) outbound: HashMap<Mapping, u32>,
    pub(crate) drops: Drops,
    pub(crate) icmp: TokenBucket,
    pub(crate) sent: Option<f64>,
    pub(crate) heard: Option<f64>,
    /// Whether it is captured.
    pub(crate) tapped: bool,
    pub(crate) coalescer: Coalescer,
}

impl Tunnel {
    /// `vnet_header`: its TUN has a `virtio_net_hdr` before each packet.
    pub(crate) fn new(id: TunnelId, vnet_header: bool) -> Self {
        Self {
            path_mtu: DEFAULT_PATH_MTU,
            most: None,
            mss: None,
            rows: Box::default(),
            policies: SelectorTable::outbound(Box::default()),
            keep: None,
            probed: None,
            waiting: HashMap::new(),
            outbound: HashMap::new(),
            drops: Drops::default(),
            icmp: TokenBucket::new(ICMP_RATE, ICMP_BURST),
            sent: None,
            heard: None,
            tapped: false,
            coalescer: Coalescer::new(id, vnet_header),
        }
    }

    /// The mappings, all at once; what waits for one that is gone goes with it.
    pub(crate) fn replace_policies(&mut self, rows: Box<[PolicyRow]>) {
        let outbound = rows.iter().map(|row| Row {
            mapping: row.mapping,
            sources: row.local.clone(),
            destinations: row.remote.clone(),
        });
        self.policies = SelectorTable::outbound(outbound.collect());
        self.policies.interrupt(self.keep.clone());
        self.waiting.retain(|mapping, _| rows.iter().any(|row| row.mapping == *mapping));
        self.rows = rows;
    }

    /// What is left of an SA's limit, in bytes of an inner packet.
    pub(crate) fn within(&self, limit: usize) -> usize {
        self.most.map_or(limit, |most| most.min(limit))
    }
}
