//! From the network to the TUN: SA, window, ICV, padding, selectors, ECN; then the joined write.
//!
//! The order is RFC 4303's: a cheap look at the window, the ICV, only then the window moves and the padding and
//! the inner packet are believed. A datagram of several segments, which the kernel joined, is taken as runs of
//! one SA and one length, and opened where it lies.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;

use crate::coalesce::Writes;
use crate::ecn::apply_outer;
use crate::esp::{self, AT_ONCE, DUMMY, HEADER_LENGTH, TRAILER_LENGTH};
use crate::fit::{clamp_mss, may_be_syn};
use crate::icmp::append_echo_answer;
use crate::interface::{Drop, Drops, Endpoint, Notice, TunnelId};
use crate::ip::{ECN_MASK, Malformed};
use crate::outbound::{Batch, Outgoing};
use crate::sad::SaPair;
use crate::spd::Verdict;
use crate::tap::{Layer, Taps};
use crate::tunnel::{TokenBucket, Tunnel};

/// Notices a second about SPIs that no SA has, from each peer, and from all strangers together.
const UNKNOWN_SPI_RATE: f64 = 1.0;
/// Ours: seconds between two looks at whose SAs there are, so that a flood costs one look.
const PEERS_KNOWN: f64 = 1.0;

/// Ours: packets of peers that are kept for an SA that may come, and seconds: as an answer may take.
const EARLY_PACKETS: usize = 256;
const EARLY_TIME: f64 = 1.0;

/// Begins an IKE message on the port that ESP shares (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: u32 = 0;
/// RFC 3948 section 2.3.
pub const KEEPALIVE: &[u8] = b"\xff";

/// One datagram, or several of `length` bytes that the kernel joined; the last may be shorter.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The ESP packets; they are decrypted here.
    pub data: &'a mut [u8],
    /// Bytes of each but the last.
    pub length: usize,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// Where it came from; port 0 for raw ESP.
    pub sender: Endpoint,
    /// The local UDP port, or 0 for raw ESP, where there are neither keepalives nor IKE messages.
    pub port: u16,
}

/// What a batch from the network gave; used again for the next, so that its memory is.
#[derive(Debug, Default)]
pub struct Incoming {
    pub(crate) writes: Writes,
    ike: Vec<(Endpoint, Box<[u8]>)>,
    delivered: Vec<TunnelId>,
    segments: Vec<Segment>,
    answer: Vec<u8>,
}

impl Incoming {
    /// Forget it all, but for the memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.ike.clear();
    }

    /// Packets for TUNs in order, each behind its `virtio_net_hdr` where its TUN has one.
    pub fn writes(&self) -> impl Iterator<Item = (TunnelId, &[u8])> {
        self.writes.iter()
    }

    /// One of those whose packets are in the batch, first one first; None when all have been named.
    pub(crate) fn take_delivered(&mut self) -> Option<TunnelId> {
        (!self.delivered.is_empty()).then(|| self.delivered.remove(0))
    }

    /// IKE messages without their marker, and who sent them.
    #[must_use]
    pub fn ike(&self) -> &[(Endpoint, Box<[u8]>)] {
        &self.ike
    }
}

/// One ESP packet of a run: where it begins, where its plaintext lies once it has been opened, and its number.
#[derive(Clone, Debug)]
struct Segment {
    at: usize,
    place: Range<usize>,
    sequence: u64,
    verdict: Opened,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Good,
    Bad,
    Replayed,
}

/// An ESP packet of a peer that came before its SA.
#[derive(Debug)]
pub(crate) struct Early {
    at: f64,
    data: Box<[u8]>,
    traffic_class: u8,
    sender: Endpoint,
    port: u16,
}

impl Early {
    pub(crate) const fn datagram(&mut self) -> Datagram<'_> {
        Datagram {
            length: self.data.len(),
            data: &mut self.data,
            traffic_class: self.traffic_class,
            sender: self.sender,
            port: self.port,
        }
    }
}

/// What limits the notices about SPIs that no SA has, and what is kept of their packets.
#[derive(Debug)]
pub(crate) struct Strangers {
    others: TokenBucket,
    /// By the addresses of those that have SAs: no flood of another hides that one has forgotten them.
    peers: HashMap<IpAddr, TokenBucket>,
    looked: f64,
    early: VecDeque<Early>,
}

impl Default for Strangers {
    fn default() -> Self {
        let (peers, early) = (HashMap::new(), VecDeque::new());
        Self { others: unknown(), peers, looked: f64::NEG_INFINITY, early }
    }
}

fn unknown() -> TokenBucket {
    TokenBucket::new(UNKNOWN_SPI_RATE, 1.0)
}

impl Strangers {
    fn may_tell(&mut self, now: f64, source: IpAddr, pairs: &HashMap<u32, SaPair>) -> bool {
        if now >= self.looked + PEERS_KNOWN {
            self.looked = now;
            let mut known = std::mem::take(&mut self.peers);
            for pair in pairs.values() {
                let peer = pair.child.remote.address;
                self.peers.entry(peer).or_insert_with(|| known.remove(&peer).unwrap_or_else(unknown));
            }
        }
        self.peers.get_mut(&source).unwrap_or(&mut self.others).take(now)
    }

    /// Keep what a peer has sent, should its SA come: the newest are kept.
    fn keep(&mut self, early: Early) {
        if self.peers.contains_key(&early.sender.address) {
            if self.early.len() == EARLY_PACKETS {
                self.early.pop_front();
            }
            self.early.push_back(early);
        }
    }

    /// What was kept for the SA with this SPI, and not for long.
    pub(crate) fn take_early(&mut self, now: f64, spi_in: u32) -> VecDeque<Early> {
        let is_its = |one: &Early| spi_at(&one.data, 0) == Some(spi_in);
        let (mut its, others): (VecDeque<_>, VecDeque<_>) = self.early.drain(..).partition(is_its);
        self.early = others;
        its.retain(|one| now - one.at <= EARLY_TIME);
        its
    }
}

/// One batch of datagrams.
pub(crate) struct Receiver<'a> {
    pub(crate) now: f64,
    pub(crate) tunnels: &'a mut HashMap<TunnelId, Tunnel>,
    pub(crate) pairs: &'a mut HashMap<u32, SaPair>,
    pub(crate) notices: &'a mut Vec<Notice>,
    pub(crate) strangers: &'a mut Strangers,
    /// Of everything that belongs to no tunnel.
    pub(crate) drops: &'a mut Drops,
    pub(crate) taps: &'a mut Taps,
    /// Answers to probes.
    pub(crate) out: &'a mut Outgoing,
    pub(crate) incoming: &'a mut Incoming,
}

impl Receiver<'_> {
    pub(crate) fn receive(&mut self, datagram: &mut Datagram<'_>) {
        let total = datagram.data.len();
        let (mut start, mut length) = (0, datagram.length.max(1));
        while start < total {
            length = length.min(total - start);
            // Each segment is looked at: the kernel joins an IKE message or a keepalive to ESP packets.
            let spi = spi_at(datagram.data, start);
            let known = spi.filter(|spi| length >= HEADER_LENGTH && self.pairs.contains_key(spi));
            let Some(known) = known else {
                let segment = &datagram.data[start..start + length];
                start += length;
                if datagram.port != 0 && spi == Some(NON_ESP_MARKER) {
                    let message = segment.get(4..).unwrap_or_default();
                    self.incoming.ike.push((datagram.sender, message.into()));
                } else if datagram.port == 0 || segment != KEEPALIVE {
                    self.refuse(segment, datagram.traffic_class, datagram.sender, datagram.port);
                }
                continue;
            };
            // A run ends before the first packet of another SA.
            let starts = (start..=total - length).step_by(length);
            let count = starts.take_while(|at| spi_at(datagram.data, *at) == Some(known)).count();
            self.run(known, datagram, start, length, count);
            start += count * length;
        }
    }

    /// Count what no SA takes; of a peer it is kept for a moment, should its SA come.
    fn refuse(&mut self, segment: &[u8], traffic_class: u8, sender: Endpoint, port: u16) {
        if segment.len() < HEADER_LENGTH {
            self.drops.add(Drop::Malformed, 1);
            return;
        }
        self.drops.add(Drop::NoSa, 1);
        if self.strangers.may_tell(self.now, sender.address, self.pairs)
            && let Some(spi) = spi_at(segment, 0)
        {
            self.notices.push(Notice::UnknownSpi { spi, source: sender.address });
        }
        self.strangers.keep(Early { at: self.now, data: segment.into(), traffic_class, sender, port });
    }

    /// Open ESP packets of one SA and one length that follow each other.
    fn run(&mut self, spi_in: u32, datagram: &mut Datagram<'_>, start: usize, length: usize, count: usize) {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        let id = pair.child.tunnel;
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let sender = datagram.sender;
        let moved = sender != pair.child.remote;
        if moved && !is_possible_path(pair, sender) {
            tunnel.drops.add(Drop::DecryptedBadPath, count);
            return;
        }
        let highest = pair.window.highest();
        let run = &mut datagram.data[start..start + count * length];
        // They are opened where they lie, which leaves nothing of what came.
        let came = if tunnel.tapped { run.to_vec() } else { Vec::new() };
        let segments = &mut self.incoming.segments;
        segments.clear();
        for (index, group) in run.chunks_mut(length * AT_ONCE).enumerate() {
            open(pair, group, length, start + index * AT_ONCE * length, segments);
        }
        let newest = segments.last().map(|segment| segment.sequence);
        // What had not been seen before may be a copy of one that came with it.
        segments.retain(|segment| {
            let verdict = match segment.verdict {
                Opened::Good if !pair.window.accept(segment.sequence) => Opened::Replayed,
                verdict => verdict,
            };
            match verdict {
                Opened::Good => {}
                Opened::Bad => tunnel.drops.add(Drop::Integrity, 1),
                Opened::Replayed => tunnel.drops.add(Drop::Replay, 1),
            }
            verdict == Opened::Good
        });
        if segments.is_empty() {
            return;
        }
        if tunnel.tapped {
            let layer = Layer::Outer { spi_in, local: pair.child.local, remote: sender, udp: pair.child.udp };
            let whole = segments.iter().map(|segment| &came[segment.at - start..][..length]);
            self.taps.show(id, false, layer, whole);
            let plaintexts = segments.iter().map(|segment| &datagram.data[segment.place.clone()]);
            let packets = plaintexts.filter_map(|text| Some(&text[..esp::inner_length(text)?]));
            self.taps.show(id, false, Layer::Inner, packets);
        }
        pair.stats.last_in = self.now;
        tunnel.heard = Some(self.now);
        if !self.incoming.delivered.contains(&id) {
            self.incoming.delivered.push(id);
        }
        if pair.awaited {
            pair.awaited = false;
            self.notices.push(Notice::PeerSends { tunnel: id, spi_in });
        }
        if moved && pair.window.highest() > highest && newest == Some(pair.window.highest()) {
            pair.tell_moved(sender, self.notices);
        }
        self.deliver(spi_in, datagram);
    }

    /// Check authenticated plaintexts and give their packets to the TUN, within the SA's limits.
    fn deliver(&mut self, spi_in: u32, datagram: &mut Datagram<'_>) {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        let Some(tunnel) = self.tunnels.get_mut(&pair.child.tunnel) else { return };
        let segments = &mut self.incoming.segments;
        let room = fitting(pair, segments, datagram.data);
        if room < segments.len() {
            tunnel.drops.add(Drop::Lifetime, segments.len() - room);
            segments.truncate(room);
            pair.tell_hard(self.notices);
        }
        if datagram.traffic_class & ECN_MASK != 0 {
            segments.retain(|segment| {
                let marked = apply_outer(&mut datagram.data[segment.place.clone()], datagram.traffic_class);
                // What is no IP packet is found out and counted below.
                let congested = matches!(marked, Ok(Err(_)));
                tunnel.drops.add(Drop::Ecn, usize::from(congested));
                !congested
            });
        }
        let mut taken = (0, 0);
        let mut next = 0;
        while let Some(answered) = self.admit(spi_in, datagram.data, &mut next, &mut taken) {
            self.answer(spi_in, answered);
        }
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        pair.stats.packets_in += taken.0;
        pair.stats.bytes_in += taken.1;
        pair.tell_soft(self.notices);
    }

    /// Give the packets of segments from `next` on to the coalescer, up to a probe that is to be answered, and
    /// count them in `taken`. The length of that probe; None at the end.
    fn admit(
        &mut self,
        spi_in: u32,
        data: &mut [u8],
        next: &mut usize,
        taken: &mut (u64, u64),
    ) -> Option<usize> {
        let pair = self.pairs.get_mut(&spi_in)?;
        let tunnel = self.tunnels.get_mut(&pair.child.tunnel)?;
        let limit = tunnel.within(pair.limit);
        while let Some(segment) = self.incoming.segments.get(*next) {
            *next += 1;
            let plaintext = &mut data[segment.place.clone()];
            let Some(length) = esp::inner_length(plaintext) else {
                // A dummy packet is dropped without a trace (RFC 4303 section 2.6).
                if plaintext.last() != Some(&DUMMY) {
                    tunnel.drops.add(Drop::Malformed, 1);
                }
                continue;
            };
            let packet = &mut plaintext[..length];
            let admitted = match pair.allowed.lookup(packet) {
                Ok(Verdict::Nothing) => {
                    tunnel.drops.add(Drop::Policy, 1);
                    continue;
                }
                Ok(Verdict::Probed) => {
                    self.incoming.answer.clear();
                    match append_echo_answer(&mut self.incoming.answer, packet) {
                        Ok(true) => return Some(length),
                        Ok(false) => Ok(()),
                        Err(Malformed) => Err(Malformed),
                    }
                }
                Ok(Verdict::Mapping(_)) => Ok(()),
                Err(Malformed) => Err(Malformed),
            };
            let admitted = admitted.and_then(|()| {
                if may_be_syn(packet) { clamp_mss(packet, limit, tunnel.mss) } else { Ok(()) }
            });
            if admitted == Err(Malformed) {
                tunnel.drops.add(Drop::Malformed, 1);
                continue;
            }
            taken.0 += 1;
            taken.1 += length as u64;
            tunnel.coalescer.take(packet, &mut self.incoming.writes);
        }
        None
    }

    /// Answer a probe, which had `length` bytes, before all that waits in the TUN.
    fn answer(&mut self, spi_in: u32, length: usize) {
        let Some(id) = self.pairs.get(&spi_in).map(|pair| pair.child.tunnel) else { return };
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let told = self.out.answers().count();
        let (now, pairs, notices) = (self.now, &mut *self.pairs, &mut *self.notices);
        if tunnel.tapped {
            self.taps.show(id, true, Layer::Inner, [&*self.incoming.answer]);
        }
        Batch { now, id, tunnel, pairs, notices, taps: self.taps, out: self.out }
            .send([&self.incoming.answer]);
        for error in self.out.answers().skip(told) {
            tunnel.coalescer.write_plain(error, &mut self.incoming.writes);
        }
        self.out.forget_answers(told);
        if let Some(pair) = self.pairs.get_mut(&spi_in) {
            pair.stats.packets_in += 1;
            pair.stats.bytes_in += length as u64;
        }
    }
}

fn spi_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Open the packets of a group, which begins at `start`, whose numbers are new.
fn open(pair: &SaPair, group: &mut [u8], length: usize, start: usize, segments: &mut Vec<Segment>) {
    let suite = pair.child.suite;
    let mut sequences = [0; AT_ONCE];
    for (sequence, packet) in sequences.iter_mut().zip(group.chunks_exact(length)) {
        let low = spi_at(packet, 4).unwrap_or_default();
        *sequence = if suite.esn() { pair.window.extend(low) } else { u64::from(low) };
    }
    let new = sequences.map(|sequence| pair.window.check(sequence).then_some(sequence));
    let opened = pair.opener.open_group(group, length, new);
    for (index, sequence) in sequences.into_iter().take(group.len() / length).enumerate() {
        let at = start + index * length;
        let (place, verdict) = match (new[index], opened[index]) {
            (None, _) => (at..at, Opened::Replayed),
            (_, true) => (at + suite.prefix()..at + length - suite.icv_length(), Opened::Good),
            (_, false) => (at..at, Opened::Bad),
        };
        segments.push(Segment { at, place, sequence, verdict });
    }
}

/// How many of the plaintexts, the first ones, the SA may still carry.
fn fitting(pair: &SaPair, segments: &[Segment], data: &[u8]) -> usize {
    let Some(hard) = pair.child.hard_bytes else { return segments.len() };
    let mut left = hard.saturating_sub(pair.stats.bytes_in);
    let longest = segments.first().map_or(0, |segment| segment.place.len());
    if left / (longest.saturating_sub(TRAILER_LENGTH).max(1) as u64) >= segments.len() as u64 {
        return segments.len();
    }
    // With their padding they do not all fit; it is their packets that count.
    let fits = |segment: &&Segment| {
        let length = esp::inner_length(&data[segment.place.clone()]).unwrap_or_default();
        left.checked_sub(length as u64).inspect(|less| left = *less).is_some()
    };
    segments.iter().take_while(fits).count()
}

/// Whether an SA's packets may come from `sender`, which is not where ours go.
///
/// In UDP the peer may have a new address or port behind its NAT; only authentication tells. All else must come
/// from the peer's address, in either encapsulation (RFC 7296 section 2.23).
fn is_possible_path(pair: &SaPair, sender: Endpoint) -> bool {
    (pair.child.udp && sender.port != 0) || sender.address == pair.child.remote.address
}
