//! From the TUN to the network: the mapping and SA of each packet, the limits, runs of equal packets, sealing.
//!
//! Packets of one flow come one after the other and most have one length, so each is compared with the first of
//! the run; only where something differs is anything looked up. A run is what is sealed at once; runs of one SA
//! leave together where only the last packet is shorter.

use std::collections::HashMap;
use std::ops::Range;

use crate::esp::{self, Suite};
use crate::fit::{clamp_mss, fragment_ipv4, may_be_syn};
use crate::icmp::append_too_big;
use crate::interface::{Drop, Endpoint, Notice, TunnelId};
use crate::ip::{IPV4_HEADER, IPV6_HEADER, IpPacket, Malformed, TCP, is_option_header, version};
use crate::sad::SaPair;
use crate::spd::{Flow, Mapping, Verdict};
use crate::split::Read;
use crate::tap::{Layer, Taps};
use crate::tunnel::Tunnel;

/// Bytes of packet up to which TCP flags are looked at one by one: a SYN carries options and no more.
const LARGEST_SYN: usize = 200;
/// No IPv6 link carries less (RFC 8200 section 5): up to this, what is too long goes and is cut outside.
const LEAST_IPV6_MTU: usize = 1280;

const DONT_FRAGMENT_AT: usize = 6;
const DONT_FRAGMENT_BIT: u8 = 0x40;

/// ESP packets of one SA that leave with one send: of one length, but a last one that may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Train {
    /// Whose packets they are.
    pub tunnel: TunnelId,
    /// The SA, by the SPI that it receives on.
    pub spi_in: u32,
    /// Where they go.
    pub remote: Endpoint,
    /// Whether they travel in UDP.
    pub udp: bool,
    /// Where they lie in `Outgoing::bytes`.
    pub range: Range<usize>,
    /// Bytes of each but the last.
    pub length: usize,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// Bytes of an ESP packet that the path carries.
    pub room: usize,
    last: usize,
}

impl Train {
    /// Whether `count` packets of `length` bytes can join: of the same length, or a shorter last one.
    fn takes(&self, length: usize, count: usize) -> bool {
        self.last == self.length && (length == self.length || (length < self.length && count == 1))
    }
}

/// What a batch from a TUN gave; used again for the next, so that its memory is.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    trains: Vec<Train>,
    answers: Vec<u8>,
    answer_ends: Vec<usize>,
    scratch: Vec<u8>,
}

impl Outgoing {
    /// Forget it all, but for the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.trains.clear();
        self.answers.clear();
        self.answer_ends.clear();
    }

    /// What is to be sent, in order.
    #[must_use]
    pub fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// The ESP packets of a train, one after the other.
    #[must_use]
    pub fn packets_of(&self, train: &Train) -> &[u8] {
        &self.bytes[train.range.clone()]
    }

    /// ICMP errors for the TUN, in order.
    pub fn answers(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.answer_ends.iter().copied());
        starts.zip(&self.answer_ends).map(|(start, end)| &self.answers[start..*end])
    }

    /// Forget the ICMP errors but the first `kept`.
    pub(crate) fn forget_answers(&mut self, kept: usize) {
        self.answer_ends.truncate(kept);
        self.answers.truncate(self.answer_ends.last().copied().unwrap_or_default());
    }

    /// Room for a packet of `inner` bytes where its SA seals it, and for all that `sealed_length` counts.
    fn reserve(&mut self, suite: Suite, inner: usize) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.resize(start + suite.sealed_length(inner), 0);
        start + suite.prefix()..start + suite.prefix() + inner
    }

    /// Append a packet where its SA seals it, with room for what `sealed_length` counts.
    fn place(&mut self, suite: Suite, pieces: [&[u8]; 2]) -> Range<usize> {
        let start = self.bytes.len();
        let inner = pieces[0].len() + pieces[1].len();
        self.bytes.resize(start + suite.prefix(), 0);
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        self.bytes.resize(start + suite.sealed_length(inner), 0);
        start + suite.prefix()..start + suite.prefix() + inner
    }
}

/// What packets of one flow share, besides their length: version, traffic class, protocol and addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    first: [u8; 2],
    protocol: u8,
    flow: Flow,
}

impl Head {
    fn of(packet: &[u8]) -> Option<Self> {
        let flow = Flow::of(packet)?;
        Some(Self { first: [packet[0], packet[1]], protocol: packet[protocol_at(&flow)], flow })
    }
}

const fn protocol_at(flow: &Flow) -> usize {
    match flow {
        Flow::V4(_) => 9,
        Flow::V6(_) => 6,
    }
}

/// Packets of one length and one head that are being gathered, from `start` in `Outgoing::bytes` on.
#[derive(Clone, Copy)]
struct Run {
    spi_in: u32,
    suite: Suite,
    head: Head,
    start: usize,
    inner: usize,
}

/// What becomes of a packet.
enum Choice {
    /// It goes as it is, and so do those with the same head and length after it.
    Run,
    /// It goes as it is.
    Alone,
    /// It may be a SYN, whose MSS must not exceed what fits into so many bytes.
    Clamp(usize),
    /// It is cut into pieces of at most so many bytes.
    Cut(usize),
}

/// One batch of one tunnel's packets.
pub(crate) struct Batch<'a> {
    pub(crate) now: f64,
    pub(crate) id: TunnelId,
    pub(crate) tunnel: &'a mut Tunnel,
    pub(crate) pairs: &'a mut HashMap<u32, SaPair>,
    pub(crate) notices: &'a mut Vec<Notice>,
    pub(crate) taps: &'a mut Taps,
    pub(crate) out: &'a mut Outgoing,
}

impl Batch<'_> {
    /// Take the packets, in order.
    pub(crate) fn send<P: AsRef<[u8]>>(&mut self, packets: impl IntoIterator<Item = P>) {
        // A train ends with its batch: it has left.
        let earlier = self.out.trains.len();
        let mut run = None;
        for packet in packets {
            self.push(&mut run, packet.as_ref(), earlier);
        }
        self.end(run, earlier);
    }

    /// Take what was read from a TUN with a `virtio_net_hdr`, in order; each may stand for many packets.
    pub(crate) fn send_reads<'r>(&mut self, reads: impl IntoIterator<Item = &'r [u8]>) {
        let earlier = self.out.trains.len();
        let mut run = None;
        for read in reads {
            match Read::new(read) {
                Ok(read) => self.push_read(&mut run, &read, earlier),
                Err(Malformed) => self.tunnel.drops.add(Drop::Malformed, 1),
            }
        }
        self.end(run, earlier);
    }

    /// Seal the last run, and show what leaves to who captures the tunnel.
    fn end(&mut self, run: Option<Run>, earlier: usize) {
        if let Some(run) = run {
            self.seal(run, earlier);
        }
        if !self.tunnel.tapped {
            return;
        }
        for train in &self.out.trains[earlier..] {
            let Some(pair) = self.pairs.get(&train.spi_in) else { continue };
            let (local, remote) = (pair.child.local, train.remote);
            let layer = Layer::Outer { spi_in: train.spi_in, local, remote, udp: train.udp };
            self.taps.show(self.id, true, layer, self.out.packets_of(train).chunks(train.length));
        }
    }

    /// Take the packets of one read. All but the last are alike, so once the first of them may go as it is, the
    /// others are written to where they will be sealed.
    fn push_read(&mut self, run: &mut Option<Run>, read: &Read<'_>, earlier: usize) {
        let mut scratch = std::mem::take(&mut self.out.scratch);
        let count = read.count();
        let mut index = 0;
        while index < count {
            let length = read.length(index);
            if let Some(run) = run.as_ref().filter(|run| index > 0 && run.inner == length) {
                let place = self.out.reserve(run.suite, length);
                read.write(index, &mut self.out.bytes[place]);
            } else {
                scratch.resize(length, 0);
                read.write(index, &mut scratch);
                self.push(run, &scratch, earlier);
            }
            index += 1;
        }
        self.out.scratch = scratch;
    }

    /// Take one packet, which may continue the run or end it.
    fn push(&mut self, run: &mut Option<Run>, packet: &[u8], earlier: usize) {
        if let Some(run) = run
            && packet.len() == run.inner
            && Head::of(packet) == Some(run.head)
        {
            self.out.place(run.suite, [packet, &[]]);
            return;
        }
        if let Some(run) = run.take() {
            self.seal(run, earlier);
        }
        *run = self.take(packet, earlier).unwrap_or_else(|Malformed| {
            self.tunnel.drops.add(Drop::Malformed, 1);
            None
        });
    }

    /// Seal a packet, or count why not, or let it wait; or begin a run with it.
    fn take(&mut self, packet: &[u8], earlier: usize) -> Result<Option<Run>, Malformed> {
        let head = Head::of(packet).ok_or(Malformed)?;
        let Some((spi_in, suite, choice)) = self.choose(packet, &head)? else { return Ok(None) };
        let start = self.out.bytes.len();
        let run = Run { spi_in, suite, head, start, inner: packet.len() };
        match choice {
            Choice::Run => {
                self.out.place(suite, [packet, &[]]);
                return Ok(Some(run));
            }
            Choice::Alone => {
                self.out.place(suite, [packet, &[]]);
                self.seal(run, earlier);
            }
            Choice::Clamp(limit) => {
                let placed = self.out.place(suite, [packet, &[]]);
                if let Err(malformed) = clamp_mss(&mut self.out.bytes[placed], limit, self.tunnel.mss) {
                    self.out.bytes.truncate(start);
                    return Err(malformed);
                }
                self.seal(run, earlier);
            }
            Choice::Cut(limit) => {
                fragment_ipv4(packet, limit, |header, data| {
                    let start = self.out.bytes.len();
                    self.out.place(suite, [header, data]);
                    self.seal(Run { start, inner: header.len() + data.len(), ..run }, earlier);
                })?;
            }
        }
        Ok(None)
    }

    /// The SA that carries a packet and what becomes of it; None if it was dropped and counted, or waits.
    fn choose(&mut self, packet: &[u8], head: &Head) -> Result<Option<(u32, Suite, Choice)>, Malformed> {
        let is_ipv4 = version(packet) == 4;
        let mut by_address = self.tunnel.policies.by_address();
        let Verdict::Mapping(mapping) = self.tunnel.policies.lookup(packet)? else {
            self.tunnel.drops.add(Drop::Policy, 1);
            return Ok(None);
        };
        let spi_in = self.tunnel.outbound.get(&mapping).copied();
        let Some((spi_in, pair)) = spi_in.and_then(|spi| Some((spi, self.pairs.get_mut(&spi)?))) else {
            return self.wait(mapping, packet).map(|()| None);
        };
        if let Some(part) = &mut pair.part {
            by_address &= part.by_address();
            if part.decide(packet)? == Verdict::Nothing {
                self.tunnel.drops.add(Drop::Policy, 1);
                return Ok(None);
            }
        }
        let within = self.tunnel.within(pair.limit);
        let limit = if is_ipv4 { within } else { within.max(LEAST_IPV6_MTU) };
        if packet.len() > limit {
            if !may_be_cut(packet) {
                return self.refuse_too_big(packet, limit).map(|()| None);
            }
            // The later fragments of one whose SA names ports would show none, so the peer would drop them: it
            // is cut outside.
            let choice = if pair.by_port { Choice::Alone } else { Choice::Cut(limit) };
            return Ok(Some((spi_in, pair.child.suite, choice)));
        }
        let may_be_tcp = head.protocol == TCP || (!is_ipv4 && is_option_header(head.protocol));
        let choice = match (may_be_tcp && packet.len() < LARGEST_SYN, by_address) {
            (true, _) if may_be_syn(packet) => Choice::Clamp(limit),
            (false, true) => Choice::Run,
            _ => Choice::Alone,
        };
        Ok(Some((spi_in, pair.child.suite, choice)))
    }

    /// Tell the sender of a packet that it is too long (RFC 4301 section 8).
    fn refuse_too_big(&mut self, packet: &[u8], limit: usize) -> Result<(), Malformed> {
        self.tunnel.drops.add(Drop::TooBig, 1);
        if self.tunnel.icmp.take(self.now) && append_too_big(&mut self.out.answers, packet, limit)? {
            self.out.answer_ends.push(self.out.answers.len());
        }
        Ok(())
    }

    /// Keep a mapping's first packets until it has an SA, and ask for one.
    fn wait(&mut self, mapping: Mapping, packet: &[u8]) -> Result<(), Malformed> {
        let waiting = self.tunnel.waiting.entry(mapping).or_default();
        if !waiting.hold(self.now, packet) {
            self.tunnel.drops.add(Drop::NoSa, 1);
        }
        if waiting.may_acquire(self.now) {
            let ip = IpPacket::read(packet)?;
            self.notices.push(Notice::Acquire {
                tunnel: self.id,
                mapping,
                source: ip.source,
                destination: ip.destination,
                protocol: ip.protocol,
            });
        }
        Ok(())
    }

    /// Seal the run that ends here, as far as its SA may, and put it into a train: one of this batch, whose
    /// trains begin at `earlier`.
    fn seal(&mut self, run: Run, earlier: usize) {
        let Some(pair) = self.pairs.get_mut(&run.spi_in) else { return };
        let length = run.suite.sealed_length(run.inner);
        let all = (self.out.bytes.len() - run.start) / length;
        let count = pair.sendable(all, run.inner);
        let ended = count < all;
        self.tunnel.drops.add(Drop::Lifetime, all - count);
        self.out.bytes.truncate(run.start + count * length);
        if count == 0 {
            pair.tell_limits(self.notices, true);
            return;
        }
        let [first, second] = run.head.first;
        let (next_header, traffic_class) = match run.head.flow {
            Flow::V4(_) => (esp::IPV4, second),
            Flow::V6(_) => (esp::IPV6, first << 4 | second >> 4),
        };
        let place = &mut self.out.bytes[run.start..];
        let sealed = pair.sealer.seal(place, run.inner, pair.sequence + 1, next_header);
        // Also of numbers that were not sealed: none may come twice.
        pair.sequence += count as u64;
        if sealed.is_err() {
            self.tunnel.drops.add(Drop::Send, count);
            self.out.bytes.truncate(run.start);
            return;
        }
        pair.stats.packets_out += count as u64;
        pair.stats.bytes_out += (count * run.inner) as u64;
        pair.stats.last_out = self.now;
        self.tunnel.sent = Some(self.now);
        if ended || pair.should_be_replaced() {
            let used_up = ended || pair.is_used_up();
            pair.tell_limits(self.notices, used_up);
        }
        let end = self.out.bytes.len();
        if let Some(train) = self.out.trains[earlier..].last_mut()
            && train.spi_in == run.spi_in
            && train.traffic_class == traffic_class
            && train.takes(length, count)
        {
            train.range.end = end;
            train.last = length;
            return;
        }
        self.out.trains.push(Train {
            tunnel: self.id,
            room: pair.room,
            spi_in: run.spi_in,
            remote: pair.child.remote,
            udp: pair.child.udp,
            range: run.start..end,
            length,
            traffic_class,
            last: length,
        });
    }
}

/// Whether it is of IPv4 and has no DF.
fn may_be_cut(packet: &[u8]) -> bool {
    version(packet) == 4 && packet[DONT_FRAGMENT_AT] & DONT_FRAGMENT_BIT == 0
}

const _: () = assert!(IPV4_HEADER > DONT_FRAGMENT_AT && IPV6_HEADER > DONT_FRAGMENT_AT);
