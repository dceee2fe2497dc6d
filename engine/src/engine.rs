//! The engine without input and output: tunnels, policies and SAs in; packets through; notices and counters out.
//!
//! All calls come from one thread. The time, in monotonic seconds, and entropy are handed in.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::esp::{Keys, SEED_LENGTH};
use crate::inbound::{Datagram, Early, Incoming, Receiver, Strangers};
use crate::interface::{Drop, Drops, Endpoint, Notice, PolicyRow, SaStats, TunnelId};
use crate::mtu::believed;
use crate::outbound::{Batch, Outgoing};
use crate::sad::{Child, Refused, SaPair};
use crate::spd::{Flow, Mapping};
use crate::split::Read;
use crate::tap::{Layer, Seen, Taps};
use crate::tunnel::Tunnel;

/// Seconds between two notices about the path to one address.
const MTU_INTERVAL: f64 = 1.0;

/// Carries packets; see `vpnd.datapath.interface.Engine`.
#[derive(Default)]
pub struct Engine {
    tunnels: HashMap<TunnelId, Tunnel>,
    pairs: HashMap<u32, SaPair>,
    notices: Vec<Notice>,
    own: Box<[IpAddr]>,
    strangers: Strangers,
    stray: Drops,
    /// When the next notice about the path to an address may come.
    mtu_told: HashMap<IpAddr, f64>,
    taps: Taps,
}

impl Engine {
    /// An engine without tunnels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses that it listens on: SAs that are installed later carry no packets from them.
    pub fn set_own(&mut self, own: Box<[IpAddr]>) {
        self.own = own;
    }

    /// Begin to carry a tunnel's packets; false, and no change, if it is known.
    ///
    /// `vnet_header`: its TUN has a `virtio_net_hdr` before each packet, so segments are joined.
    pub fn add_tunnel(&mut self, id: TunnelId, vnet_header: bool) -> bool {
        if self.tunnels.contains_key(&id) {
            return false;
        }
        self.tunnels.insert(id, Tunnel::new(id, vnet_header));
        true
    }

    /// Whether the kernel takes joined UDP datagrams from this tunnel (`VIRTIO_NET_HDR_GSO_UDP_L4`, Linux 6.2).
    pub fn join_udp(&mut self, id: TunnelId, joins: bool) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.coalescer.joins_udp = joins;
        }
    }

    /// Stop carrying its packets and forget its SAs.
    pub fn remove_tunnel(&mut self, id: TunnelId) {
        self.tunnels.remove(&id);
        self.pairs.retain(|_, pair| pair.child.tunnel != id);
    }

    /// The path to this tunnel's peer now carries datagrams of `path_mtu` bytes, IP header included.
    pub fn set_mtu(&mut self, id: TunnelId, path_mtu: usize) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.path_mtu = path_mtu;
        }
        self.of_tunnel(id).for_each(|pair| pair.resize(path_mtu));
    }

    /// Inner packets have at most `most` bytes, TCP segments `mss`; None: as many as the path carries.
    pub fn set_limits(&mut self, id: TunnelId, most: Option<usize>, mss: Option<u16>) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            (tunnel.most, tunnel.mss) = (most, mss);
        }
    }

    /// The mappings of a tunnel, all at once; SAs of mappings that are gone stay until removed.
    pub fn replace_policies(&mut self, id: TunnelId, rows: Box<[PolicyRow]>) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.replace_policies(rows);
        }
    }

    /// Drop a tunnel's business traffic, all but packets from or to `keep`; None ends that.
    pub fn interrupt(&mut self, id: TunnelId, keep: Option<&[IpAddr]>) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.keep = keep.map(Into::into);
            tunnel.policies.interrupt(tunnel.keep.clone());
        }
        self.of_tunnel(id).for_each(|pair| pair.allowed.interrupt(keep.map(Into::into)));
    }

    /// Answer echo requests from `remote` to `local` at once, before all that wait in the TUN.
    pub fn answer_probes(&mut self, id: TunnelId, local: IpAddr, remote: IpAddr) {
        let probed = Flow::between(remote, local);
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.probed = probed;
        }
        self.of_tunnel(id).for_each(|pair| pair.allowed.tell_probes(probed));
    }

    /// Receive on `child.spi_in`; with `outbound`, also send its mapping's packets on it, and those that waited.
    ///
    /// # Errors
    /// There is no such tunnel, the SPI is in use, or the keys do not fit.
    pub fn install(
        &mut self,
        now: f64,
        child: Child,
        keys: [Keys<'_>; 2],
        seed: &[u8; SEED_LENGTH],
        outbound: bool,
        out: &mut Outgoing,
    ) -> Result<(), Refused> {
        let tunnel = self.tunnels.get(&child.tunnel).ok_or(Refused::Tunnel)?;
        let spi_in = child.spi_in;
        if self.pairs.contains_key(&spi_in) {
            return Err(Refused::Known);
        }
        let [keys_in, keys_out] = keys;
        let mut pair = SaPair::new(child, keys_in, keys_out, seed, tunnel.path_mtu, &self.own)?;
        pair.compare(&tunnel.rows);
        pair.allowed.interrupt(tunnel.keep.clone());
        pair.allowed.tell_probes(tunnel.probed);
        pair.awaited = !outbound;
        self.pairs.insert(spi_in, pair);
        if outbound {
            self.use_outbound(now, spi_in, out);
        }
        Ok(())
    }

    /// Send this mapping's packets on the SA pair with this inbound SPI from now on, and those that waited.
    pub fn use_outbound(&mut self, now: f64, spi_in: u32, out: &mut Outgoing) {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        pair.awaited = false;
        let (id, mapping) = (pair.child.tunnel, pair.child.mapping);
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.outbound.insert(mapping, spi_in);
        }
        self.release(now, id, mapping, out);
    }

    /// The SA pair carries no more than `hard` bytes each way and is replaced at `soft`; a lower limit stays.
    pub fn limit(&mut self, spi_in: u32, soft: u64, hard: u64) {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        if pair.child.hard_bytes.is_none_or(|before| hard < before) {
            (pair.child.soft_bytes, pair.child.hard_bytes) = (Some(soft), Some(hard));
        }
        pair.tell_soft(&mut self.notices);
    }

    /// Send what waited for an SA of this mapping.
    fn release(&mut self, now: f64, id: TunnelId, mapping: Mapping, out: &mut Outgoing) {
        let waiting = self.tunnels.get_mut(&id).and_then(|tunnel| tunnel.waiting.remove(&mapping));
        if let Some(waiting) = waiting
            && let Some(mut batch) = self.batch(now, id, out)
        {
            batch.send(waiting.release(now));
        }
    }

    /// Forget an SA pair; its keys go with it. Unknown SPIs are ignored.
    pub fn remove(&mut self, spi_in: u32) {
        let Some(pair) = self.pairs.remove(&spi_in) else { return };
        if let Some(tunnel) = self.tunnels.get_mut(&pair.child.tunnel)
            && tunnel.outbound.get(&pair.child.mapping) == Some(&spi_in)
        {
            tunnel.outbound.remove(&pair.child.mapping);
        }
    }

    /// Send from `local` to `remote` from now on: the peer's authenticated new address, or ours.
    pub fn move_to(&mut self, spi_in: u32, local: Endpoint, remote: Endpoint) {
        let Some(pair) = self.pairs.get_mut(&spi_in) else { return };
        let Some(tunnel) = self.tunnels.get(&pair.child.tunnel) else { return };
        pair.move_to(local, remote, tunnel.path_mtu);
    }

    /// Seal a batch of packets as they were read from the TUN, each by itself.
    pub fn send<P: AsRef<[u8]>>(
        &mut self,
        now: f64,
        id: TunnelId,
        packets: impl IntoIterator<Item = P>,
        out: &mut Outgoing,
    ) {
        let Some(mut batch) = self.batch(now, id, out) else { return };
        if batch.tunnel.tapped {
            let packets: Vec<P> = packets.into_iter().collect();
            batch.taps.show(id, true, Layer::Inner, packets.iter().map(AsRef::as_ref));
            batch.send(packets);
        } else {
            batch.send(packets);
        }
    }

    /// The same of what was read with a `virtio_net_hdr` in front, each of which may stand for many packets.
    pub fn send_reads<'r>(
        &mut self,
        now: f64,
        id: TunnelId,
        reads: impl IntoIterator<Item = &'r [u8]>,
        out: &mut Outgoing,
    ) {
        let Some(mut batch) = self.batch(now, id, out) else { return };
        if batch.tunnel.tapped {
            let reads: Vec<&[u8]> = reads.into_iter().collect();
            let whole = reads.iter().filter_map(|read| Read::new(read).ok());
            let packets = whole.flat_map(|read| (0..read.count()).map(move |index| read.packet(index)));
            batch.taps.show(id, true, Layer::Inner, packets);
            batch.send_reads(reads);
        } else {
            batch.send_reads(reads);
        }
    }

    fn batch<'a>(&'a mut self, now: f64, id: TunnelId, out: &'a mut Outgoing) -> Option<Batch<'a>> {
        let tunnel = self.tunnels.get_mut(&id)?;
        let (pairs, notices, taps) = (&mut self.pairs, &mut self.notices, &mut self.taps);
        Some(Batch { now, id, tunnel, pairs, notices, taps, out })
    }

    /// Keep what this tunnel carries for `take_seen` from now on, or no longer. Unknown tunnels are ignored.
    pub fn tap(&mut self, id: TunnelId, tapped: bool) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.tapped = tapped;
        }
    }

    /// What tunnels that are tapped have carried since the last call, in order.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        self.taps.take()
    }

    /// Open a batch of datagrams; answers to probes are in `out`, the packets for TUNs in `incoming`.
    pub fn receive<'a>(
        &mut self,
        now: f64,
        datagrams: impl IntoIterator<Item = Datagram<'a>>,
        out: &mut Outgoing,
        incoming: &mut Incoming,
    ) {
        for datagram in datagrams {
            self.receive_one(now, datagram, out, incoming);
        }
        self.flush(incoming);
    }

    /// An SA is installed: open what its peer has sent on it before.
    ///
    /// A responder may do that once it has sent its answer, which may be overtaken (RFC 7296 section 2.8).
    pub fn receive_early(&mut self, now: f64, spi_in: u32, out: &mut Outgoing, incoming: &mut Incoming) {
        let mut early = self.strangers.take_early(now, spi_in);
        self.receive(now, early.iter_mut().map(Early::datagram), out, incoming);
    }

    /// Open one datagram of a batch, which `flush` ends.
    pub fn receive_one(
        &mut self,
        now: f64,
        mut datagram: Datagram<'_>,
        out: &mut Outgoing,
        incoming: &mut Incoming,
    ) {
        let mut receiver = Receiver {
            now,
            tunnels: &mut self.tunnels,
            pairs: &mut self.pairs,
            notices: &mut self.notices,
            strangers: &mut self.strangers,
            drops: &mut self.stray,
            taps: &mut self.taps,
            out,
            incoming,
        };
        receiver.receive(&mut datagram);
    }

    /// Write what was joined: the end of a batch.
    pub fn flush(&mut self, incoming: &mut Incoming) {
        while let Some(id) = incoming.take_delivered() {
            if let Some(tunnel) = self.tunnels.get_mut(&id) {
                tunnel.coalescer.flush(&mut incoming.writes);
            }
        }
    }

    /// Packets of a tunnel that the kernel did not take.
    pub fn count_unsent(&mut self, id: TunnelId, packets: usize) {
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.drops.add(Drop::Send, packets);
        }
    }

    /// Believe that a path carries no more than `mtu` bytes only about a packet of one of our SAs (RFC 4301
    /// section 8.2), whose SPI is `spi`; None for what this host itself says about its own interface.
    ///
    /// A sender that cannot see our packets does not know the SPI. A report never makes the path larger: no
    /// router says that more would have fit (RFC 1191 section 3).
    pub fn believe(&mut self, now: f64, remote: Endpoint, mtu: usize, spi: Option<u32>) {
        let smaller =
            |pair: &SaPair| self.tunnels.get(&pair.child.tunnel).is_some_and(|tunnel| mtu < tunnel.path_mtu);
        let about = |pair: &&SaPair| match spi {
            None => pair.child.remote.address == remote.address,
            Some(spi) => pair.child.spi_out == spi && pair.child.remote == remote,
        };
        if !self.pairs.values().filter(about).any(smaller) {
            return;
        }
        let due = self.mtu_told.get(&remote.address).is_none_or(|due| now >= *due);
        if due {
            self.mtu_told.insert(remote.address, now + MTU_INTERVAL);
            let mtu = believed(mtu, remote.address.is_ipv6());
            self.notices.push(Notice::PathMtu { remote: remote.address, mtu });
        }
    }

    /// Add something that the owner should know.
    pub fn tell(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    /// Whether there is anything to say, or was anything seen.
    #[must_use]
    pub const fn has_notices(&self) -> bool {
        !self.notices.is_empty() || !self.taps.is_empty()
    }

    /// The first of what there is to say.
    pub fn take_notice(&mut self) -> Option<Notice> {
        (!self.notices.is_empty()).then(|| self.notices.remove(0))
    }

    /// Whose SA receives on this SPI.
    #[must_use]
    pub fn tunnel_of(&self, spi_in: u32) -> Option<TunnelId> {
        self.pairs.get(&spi_in).map(|pair| pair.child.tunnel)
    }

    /// Whether the SA that receives on this SPI travels in UDP.
    #[must_use]
    pub fn is_udp(&self, spi_in: u32) -> Option<bool> {
        self.pairs.get(&spi_in).map(|pair| pair.child.udp)
    }

    /// Counters of one SA pair, or None if it is not installed.
    #[must_use]
    pub fn stats(&self, spi_in: u32) -> Option<SaStats> {
        self.pairs.get(&spi_in).map(|pair| pair.stats)
    }

    /// When this tunnel's packets left last, if any did since the last call.
    pub fn take_sent(&mut self, id: TunnelId) -> Option<f64> {
        self.tunnels.get_mut(&id)?.sent.take()
    }

    /// When authentic packets of this tunnel came last, if any did since the last call.
    pub fn take_heard(&mut self, id: TunnelId) -> Option<f64> {
        self.tunnels.get_mut(&id)?.heard.take()
    }

    /// Counters of everything that belongs to no tunnel.
    #[must_use]
    pub const fn stray_drops(&self) -> Drops {
        self.stray
    }

    /// Counters of one tunnel.
    #[must_use]
    pub fn drops(&self, id: TunnelId) -> Option<Drops> {
        self.tunnels.get(&id).map(|tunnel| tunnel.drops)
    }

    /// What there is to say since the last call, in order.
    pub fn take_notices(&mut self) -> impl Iterator<Item = Notice> {
        self.notices.drain(..)
    }

    fn of_tunnel(&mut self, id: TunnelId) -> impl Iterator<Item = &mut SaPair> {
        self.pairs.values_mut().filter(move |pair| pair.child.tunnel == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::Suite;
    use crate::spd::{ANY_PORT, Selector};

    const TUNNEL: TunnelId = 7;
    const SPI: u32 = 0x1001;

    fn everything() -> Box<[Selector]> {
        let [first, last] = ["0.0.0.0", "255.255.255.255"].map(|text| text.parse().expect("an address"));
        Box::new([Selector::new(first, last, 0, ANY_PORT).expect("a range")])
    }

    fn packet() -> Vec<u8> {
        let mut packet = Vec::new();
        let [source, destination] = ["10.1.0.1", "10.2.0.1"].map(|text| text.parse().expect("an address"));
        crate::ip::append_header(&mut packet, source, destination, 253, 80).expect("one family");
        packet.resize(100, 0);
        packet
    }

    fn engine(esn: bool) -> Engine {
        let mut engine = Engine::new();
        assert!(engine.add_tunnel(TUNNEL, false));
        engine.replace_policies(
            TUNNEL,
            Box::new([PolicyRow { mapping: 0, local: everything(), remote: everything() }]),
        );
        let keys = Keys { encryption: &[1; 16], integrity: &[], salt: &[2; 4] };
        let child = Child {
            tunnel: TUNNEL,
            mapping: 0,
            spi_in: SPI,
            spi_out: 0x2002,
            suite: Suite::of_words("aes-128-gcm", None, None, esn).expect("a suite of the table"),
            ts_local: everything(),
            ts_remote: everything(),
            local: Endpoint { address: "192.0.2.1".parse().expect("an address"), port: 4500 },
            remote: Endpoint { address: "192.0.2.2".parse().expect("an address"), port: 4500 },
            udp: true,
            soft_bytes: None,
            hard_bytes: None,
            replay_window: 64,
        };
        engine
            .install(1.0, child, [keys, keys], &[3; SEED_LENGTH], true, &mut Outgoing::default())
            .expect("keys of the right length");
        engine
    }

    fn at_sequence(engine: &mut Engine, sequence: u64) {
        engine.pairs.get_mut(&SPI).expect("the SA").sequence = sequence;
    }

    #[test]
    fn sequence_numbers_end_and_never_wrap() {
        for (esn, end) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let (mut engine, mut out) = (engine(esn), Outgoing::default());
            at_sequence(&mut engine, end - 2);
            engine.send(1.0, TUNNEL, std::iter::repeat_n(packet(), 5), &mut out);
            let [train] = out.trains() else { panic!("one train") };
            assert_eq!(out.packets_of(train).len(), 2 * train.length);
            let (tunnel, spi_in) = (TUNNEL, SPI);
            let told: Vec<_> = engine.take_notices().collect();
            assert_eq!(told, [Notice::SoftLimit { tunnel, spi_in }, Notice::HardLimit { tunnel, spi_in }]);
            out.clear();
            engine.send(1.0, TUNNEL, [packet()], &mut out);
            assert!(out.trains().is_empty());
            assert_eq!(engine.take_notices().count(), 0);
            let drops = engine.drops(TUNNEL).expect("the tunnel");
            assert_eq!(drops.counts()[Drop::Lifetime as usize], 4);
        }
    }

    #[test]
    fn an_sa_is_replaced_before_its_numbers_end() {
        let (mut engine, mut out) = (engine(false), Outgoing::default());
        at_sequence(&mut engine, u64::from(u32::MAX) - (1 << 20) - 2);
        engine.send(1.0, TUNNEL, [packet()], &mut out);
        assert_eq!(engine.take_notices().count(), 0);
        engine.send(1.0, TUNNEL, [packet()], &mut out);
        let told: Vec<_> = engine.take_notices().collect();
        assert_eq!(told, [Notice::SoftLimit { tunnel: TUNNEL, spi_in: SPI }]);
    }

    #[test]
    fn what_a_tunnel_had_goes_with_it() {
        let (mut engine, mut out) = (engine(false), Outgoing::default());
        assert!(!engine.add_tunnel(TUNNEL, false));
        engine.remove_tunnel(TUNNEL);
        assert_eq!(engine.stats(SPI), None);
        engine.send(1.0, TUNNEL, [packet()], &mut out);
        assert!(out.trains().is_empty());
        assert!(engine.add_tunnel(TUNNEL, false));
    }

    #[test]
    fn trains_of_two_batches_are_two() {
        let (mut engine, mut out) = (engine(false), Outgoing::default());
        engine.send(1.0, TUNNEL, [packet()], &mut out);
        engine.send(1.0, TUNNEL, [packet()], &mut out);
        assert_eq!(out.trains().len(), 2);
        assert_eq!(engine.take_sent(TUNNEL), Some(1.0));
        assert_eq!(engine.take_sent(TUNNEL), None);
    }
}
