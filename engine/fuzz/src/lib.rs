//! What the targets of `cargo fuzz` do with their bytes: one function for each.
//!
//! Bytes that are sealed here are authentic, so what is behind the ICV is reached as well. More than the absence of
//! a panic is asked: what comes out must be what went in, and everything is counted.

use std::collections::HashMap;
use std::net::IpAddr;

use arbitrary::Unstructured;
use vpnd_engine::engine::Engine;
use vpnd_engine::esp::{Encryption, Integrity, Keys, Opener, Sealer, Suite, inner_length};
use vpnd_engine::inbound::{Datagram, Incoming};
use vpnd_engine::interface::{Endpoint, PolicyRow, SaStats};
use vpnd_engine::ip::{IpPacket, Sum, TCP, UDP, append_header, pseudo_header, traffic_class};
use vpnd_engine::outbound::Outgoing;
use vpnd_engine::sad::Child;
use vpnd_engine::spd::{ANY_PORT, Selector};
use vpnd_engine::split::{Read, VNET_HEADER};
use vpnd_engine::{ecn, fit, icmp};

const TUNNEL: u32 = 1;
const SPI: u32 = 0x1001;
const SEED: [u8; 32] = [5; 32];
const KEY: [u8; 64] = [7; 64];
/// Most packets of one input, so that a long one is as quick as a short one.
const PACKETS: usize = 48;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn everything() -> Box<[Selector]> {
    [("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
        .map(|(first, last)| Selector::new(address(first), address(last), 0, ANY_PORT).expect("a range"))
        .into()
}

/// Every suite of the table.
fn suite(number: u8, esn: bool) -> Suite {
    let cipher = Encryption::ALL[usize::from(number) % Encryption::ALL.len()];
    let hash = Integrity::ALL[usize::from(number) / Encryption::ALL.len() % Integrity::ALL.len()];
    let hash = (!cipher.is_aead()).then(|| hash.word());
    Suite::of_words(cipher.word(), hash, None, esn).expect("a suite of the table")
}

fn keys(suite: Suite) -> Keys<'static> {
    Keys {
        encryption: &KEY[..suite.encryption().key_length()],
        integrity: &KEY[..suite.integrity().map_or(0, Integrity::key_length)],
        salt: &KEY[..suite.encryption().salt_length()],
    }
}

fn child(suite: Suite) -> Child {
    Child {
        tunnel: TUNNEL,
        mapping: 0,
        spi_in: SPI,
        spi_out: SPI + 1,
        suite,
        ts_local: everything(),
        ts_remote: everything(),
        local: Endpoint { address: address("192.0.2.1"), port: 4500 },
        remote: Endpoint { address: address("192.0.2.2"), port: 4500 },
        udp: true,
        soft_bytes: None,
        hard_bytes: None,
        replay_window: 64,
    }
}

/// An engine with one tunnel, one mapping and one SA pair, whose keys are the same both ways.
fn engine(child: Child, vnet_header: bool) -> Engine {
    let mut engine = Engine::new();
    assert!(engine.add_tunnel(TUNNEL, vnet_header));
    engine.join_udp(TUNNEL, vnet_header);
    let row = PolicyRow { mapping: 0, local: everything(), remote: everything() };
    engine.replace_policies(TUNNEL, Box::new([row]));
    let keys = keys(child.suite);
    engine.install(0.0, child, [keys; 2], &SEED, true, &mut Outgoing::default()).expect("keys that fit");
    engine
}

/// The ESP packet around some bytes, whatever they are.
fn sealed(sealer: &mut Sealer, inner: &[u8], number: u64, next_header: u8) -> Vec<u8> {
    let inner = if inner.is_empty() { &[0] } else { inner };
    let suite = sealer.suite();
    let mut packet = vec![0; suite.sealed_length(inner.len())];
    packet[suite.prefix()..][..inner.len()].copy_from_slice(inner);
    sealer.seal(&mut packet, inner.len(), number, next_header).expect("a short packet");
    packet
}

/// The packets that a write to a TUN stands for, as the kernel takes it.
fn packets_of(write: &[u8], vnet_header: bool) -> Vec<Vec<u8>> {
    if !vnet_header {
        return vec![write.to_vec()];
    }
    let read = Read::new(write).expect("what is written to a TUN can be read from one");
    let segment = |index| {
        let mut packet = vec![0; read.length(index)];
        read.write(index, &mut packet);
        packet
    };
    (0..read.count()).map(segment).collect()
}

// ------------------------------------------------------------------------------- decapsulate

/// Datagrams of hostile and of authentic packets, and commands between them.
pub fn decapsulate(data: &[u8]) {
    // At its end there is nothing more to do.
    let _ = decapsulated(&mut Unstructured::new(data));
}

fn decapsulated(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let suite = suite(input.arbitrary()?, input.arbitrary()?);
    let (vnet_header, probed, limited) = (input.arbitrary()?, input.ratio(1, 4)?, input.ratio(1, 8)?);
    let mut wanted = child(suite);
    wanted.udp = input.ratio(3, 4)?;
    if limited {
        (wanted.soft_bytes, wanted.hard_bytes) = (Some(2000), Some(4000));
    }
    if !wanted.udp {
        wanted.remote.port = 0;
    }
    let (udp, remote) = (wanted.udp, wanted.remote);
    let again = wanted.clone();
    let mut engine = engine(wanted, vnet_header);
    if probed {
        engine.answer_probes(TUNNEL, address("10.0.0.1"), address("10.0.0.2"));
    }
    let mut sealer = Sealer::new(suite, keys(suite), SPI, &SEED).expect("keys that fit");
    let (mut out, mut incoming) = (Outgoing::default(), Incoming::default());
    let (mut number, mut now) = (1_u64, 1.0);
    let mut kept: Vec<u8> = Vec::new();
    for _ in 0..PACKETS {
        if input.is_empty() {
            break;
        }
        match input.int_in_range(0..=15)? {
            0 => now += f64::from(input.arbitrary::<u8>()?),
            1 => engine.set_limits(
                TUNNEL,
                input.arbitrary::<Option<u16>>()?.map(usize::from),
                input.arbitrary()?,
            ),
            2 => engine.set_mtu(TUNNEL, input.arbitrary::<u16>()?.into()),
            3 => engine.interrupt(TUNNEL, input.arbitrary::<bool>()?.then_some(&[])),
            4 => engine.remove(SPI),
            5 => {
                let keys = keys(suite);
                let _ = engine.install(now, again.clone(), [keys; 2], &SEED, input.arbitrary()?, &mut out);
                engine.receive_early(now, SPI, &mut out, &mut incoming);
            }
            6 => {
                let port = if udp { input.arbitrary()? } else { 0 };
                engine.move_to(SPI, again.local, Endpoint { port, ..remote });
            }
            7 => engine.limit(SPI, input.arbitrary()?, input.arbitrary()?),
            kind => {
                let mut data = Vec::new();
                let mut length = 0;
                if kind < 14 {
                    let next_header = if input.ratio(1, 8)? {
                        input.arbitrary()?
                    } else {
                        [4, 41][usize::from(input.arbitrary::<bool>()?)]
                    };
                    let size = input.int_in_range(0..=1500)?;
                    let inner = input.bytes(size.min(input.len()))?;
                    for _ in 0..=input.int_in_range(0..=3)? {
                        number =
                            if input.ratio(1, 16)? { input.arbitrary::<u32>()?.into() } else { number + 1 };
                        let mut packet = sealed(&mut sealer, inner, number, next_header);
                        if input.ratio(1, 8)? {
                            let at = input.choose_index(packet.len())?;
                            packet[at] ^= input.arbitrary::<u8>()?;
                        }
                        length = packet.len();
                        data.extend_from_slice(&packet);
                    }
                    if input.ratio(1, 8)? {
                        let size = input.arbitrary_len::<u8>()?;
                        data.extend_from_slice(input.bytes(size)?);
                    }
                } else if kind == 14 {
                    data.clone_from(&kept);
                } else {
                    if input.arbitrary()? {
                        data.extend_from_slice(&SPI.to_be_bytes());
                    }
                    let size = input.arbitrary_len::<u8>()?;
                    data.extend_from_slice(input.bytes(size)?);
                    length = data.len();
                }
                if length == 0 || input.ratio(1, 8)? {
                    length = input.arbitrary::<u16>()?.into();
                }
                kept.clone_from(&data);
                let traffic_class = if input.ratio(1, 4)? { input.arbitrary()? } else { 0 };
                let sender = if input.ratio(1, 8)? {
                    Endpoint { address: address("192.0.2.3"), port: input.arbitrary()? }
                } else {
                    remote
                };
                let port = if input.ratio(7, 8)? == udp { 4500 } else { 0 };
                let before = engine.stats(SPI).unwrap_or_default();
                out.clear();
                incoming.clear();
                let datagram = Datagram { data: &mut data, length, traffic_class, sender, port };
                engine.receive(now, [datagram], &mut out, &mut incoming);
                check_counters(before, engine.stats(SPI), &incoming, vnet_header, probed);
            }
        }
        engine.take_notices().for_each(drop);
    }
    Ok(())
}

/// What was written is what was counted; besides that, probes are answered and refused.
fn check_counters(
    before: SaStats,
    after: Option<SaStats>,
    incoming: &Incoming,
    vnet_header: bool,
    probed: bool,
) {
    let written: Vec<_> = incoming.writes().flat_map(|(_, write)| packets_of(write, vnet_header)).collect();
    let Some(after) = after else {
        assert!(written.is_empty(), "there is no SA that they came on");
        return;
    };
    if probed {
        return;
    }
    let bytes: usize = written.iter().map(Vec::len).sum();
    assert_eq!(after.packets_in - before.packets_in, written.len() as u64, "packets");
    assert_eq!(after.bytes_in - before.bytes_in, bytes as u64, "bytes");
}

// ------------------------------------------------------------------------------------- split

/// What a TUN might hand over: split, sealed, and opened again.
pub fn split(data: &[u8]) {
    let Ok(read) = Read::new(data) else { return };
    let packet = &data[VNET_HEADER..];
    let mut packets = Vec::new();
    for index in 0..read.count() {
        let mut segment = vec![0; read.length(index)];
        read.write(index, &mut segment);
        packets.push(segment);
    }
    assert_eq!(packets.len(), read.count());
    if packets.len() > 1 {
        let whole = IpPacket::read(packet).expect("it was cut");
        let transport =
            if whole.protocol == UDP { 8 } else { usize::from(packet[whole.header_length + 12] >> 4) * 4 };
        let header = whole.header_length + transport;
        let joined: Vec<u8> = packets.iter().flat_map(|segment| &segment[header..]).copied().collect();
        assert_eq!(joined, packet[header..], "the data is the same");
        for segment in &packets {
            let read = IpPacket::read(segment).expect("a segment is a packet");
            assert_eq!(read.total_length, segment.len());
            let covered = &segment[read.header_length..];
            let sum =
                pseudo_header(read.source, read.destination, read.protocol, covered.len()).with(covered);
            assert_eq!(sum.folded(), 0xFFFF, "the checksum verifies");
        }
    }
    let suite = suite(3, false);
    let mut engine = engine(child(suite), true);
    let opener = Opener::new(suite, keys(suite)).expect("keys that fit");
    let mut out = Outgoing::default();
    engine.set_mtu(TUNNEL, 65535);
    engine.send_reads(1.0, TUNNEL, [data], &mut out);
    let mut sent = 0;
    for train in out.trains() {
        for packet in out.packets_of(train).chunks(train.length) {
            let number = u64::from(u32::from_be_bytes(*packet[4..].first_chunk().expect("an ESP packet")));
            let mut packet = packet.to_vec();
            let plaintext = opener.open(&mut packet, number).expect("what was sealed here");
            sent += 1;
            // What is cut into fragments, or has its MSS clamped, leaves as another packet.
            if packets.len() > 1 && out.answers().next().is_none() {
                assert_eq!(
                    inner_length(plaintext).map(|length| &plaintext[..length]),
                    Some(&*packets[sent - 1])
                );
            }
        }
    }
    assert_eq!(sent as u64, engine.stats(SPI).map_or(0, |stats| stats.packets_out));
}

// -------------------------------------------------------------------------------------- join

/// Segments of a few flows, right and wrong: joined, cut again, they are what they were, in the order of each flow.
pub fn join(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut packets = Vec::new();
    // At its end there are no more packets.
    let _ = generate(&mut input, &mut packets);
    let suite = suite(3, false);
    let mut engine = engine(child(suite), true);
    let mut sealer = Sealer::new(suite, keys(suite), SPI, &SEED).expect("keys that fit");
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    let mut lengths = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        let next_header = if packet[0] >> 4 == 6 { 41 } else { 4 };
        let sealed = sealed(&mut sealer, packet, index as u64 + 1, next_header);
        // As the kernel joins datagrams: those of one length.
        match (datagrams.last_mut(), lengths.last()) {
            (Some(last), Some(length)) if *length == sealed.len() && last.len() + sealed.len() < 65000 => {
                last.extend_from_slice(&sealed);
            }
            _ => {
                lengths.push(sealed.len());
                datagrams.push(sealed);
            }
        }
    }
    let (mut out, mut incoming) = (Outgoing::default(), Incoming::default());
    let sender = Endpoint { address: address("192.0.2.2"), port: 4500 };
    let given = datagrams.iter_mut().zip(lengths).map(|(data, length)| Datagram {
        data,
        length,
        traffic_class: 0,
        sender,
        port: 4500,
    });
    engine.receive(1.0, given, &mut out, &mut incoming);
    let mut writes = Vec::new();
    for (_, write) in incoming.writes() {
        assert!(write.len() <= VNET_HEADER + 65535);
        writes.extend(packets_of(write, true));
    }
    assert!(flows(&writes) == flows(&packets), "each flow has what it had, in its order");
}

type FlowKey = (IpAddr, IpAddr, u8, Option<(u16, u16)>);

/// The packets of each flow in order, without what no receiver may look at: the identification of a packet that is
/// never a fragment (RFC 6864), and the checksum that covers it.
fn flows(packets: &[Vec<u8>]) -> HashMap<FlowKey, Vec<Vec<u8>>> {
    let mut flows: HashMap<FlowKey, Vec<Vec<u8>>> = HashMap::new();
    for packet in packets {
        let read = IpPacket::read(packet).expect("what was generated");
        let mut seen = packet.clone();
        if seen[0] >> 4 == 4 && read.dont_fragment {
            seen[4..6].fill(0);
            seen[10..12].fill(0);
        }
        flows.entry((read.source, read.destination, read.protocol, read.ports)).or_default().push(seen);
    }
    flows
}

struct Talk {
    six: bool,
    tcp: bool,
    ports: [u8; 4],
    sequence: u32,
    identification: u16,
    size: usize,
}

fn generate(input: &mut Unstructured<'_>, packets: &mut Vec<Vec<u8>>) -> arbitrary::Result<()> {
    let mut talks = Vec::new();
    for number in 0..=input.int_in_range(0..=3_u8)? {
        talks.push(Talk {
            six: input.ratio(1, 4)?,
            tcp: input.arbitrary()?,
            ports: [0x20, number, 0x30, 1],
            sequence: input.arbitrary()?,
            identification: input.arbitrary()?,
            size: input.int_in_range(0..=1400)?,
        });
    }
    for _ in 0..PACKETS * 3 {
        if input.is_empty() {
            return Ok(());
        }
        let at = input.choose_index(talks.len())?;
        let talk = &mut talks[at];
        if input.ratio(1, 16)? {
            talk.size = input.int_in_range(0..=1400)?;
        }
        let size = if input.ratio(1, 8)? { input.int_in_range(0..=talk.size)? } else { talk.size };
        packets.push(said(talk, size, input)?);
    }
    Ok(())
}

/// The next packet of a flow, nearly always a right one.
fn said(talk: &mut Talk, size: usize, input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let transport = if talk.tcp { 20 } else { 8 };
    let protocol = if talk.tcp { TCP } else { UDP };
    let [source, destination] =
        if talk.six { ["fd00::1", "fd00::2"] } else { ["10.1.0.1", "10.2.0.1"] }.map(address);
    let mut packet = Vec::new();
    append_header(&mut packet, source, destination, protocol, transport + size).expect("one family");
    let ip = packet.len();
    packet.extend_from_slice(&talk.ports);
    if talk.tcp {
        packet.extend_from_slice(&talk.sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
        talk.sequence = talk.sequence.wrapping_add(size as u32);
    } else {
        packet.extend_from_slice(&((8 + size) as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
    }
    packet.resize(ip + transport + size, input.arbitrary()?);
    if !talk.six {
        packet[4..6].copy_from_slice(&talk.identification.to_be_bytes());
        talk.identification = talk.identification.wrapping_add(1);
        if input.ratio(1, 4)? {
            packet[6] = 0;
        }
        packet[10..12].fill(0);
        let checksum = Sum::default().with(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    // Before the checksum: another right packet; after it, a damaged one.
    let damage = input.int_in_range(0..=31_u8)?;
    if damage == 1 && talk.tcp {
        packet[ip + 13] |= 0x08;
    } else if damage == 2 {
        let at = ip + input.choose_index(packet.len() - ip)?;
        // Neither the ports nor a length, nor the flag that makes it a SYN.
        if at >= ip + 8 && at != ip + 13 {
            packet[at] = input.arbitrary()?;
        }
    }
    let length = packet.len() - ip;
    let checksum = pseudo_header(source, destination, protocol, length).with(&packet[ip..]).checksum();
    let checksum = if checksum == 0 && !talk.tcp { 0xFFFF } else { checksum };
    let place = ip + if talk.tcp { 16 } else { 6 };
    packet[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
    if damage == 3 && packet.len() > ip + 8 {
        let at = ip + 8 + input.choose_index(packet.len() - ip - 8)?;
        if at != ip + 13 {
            packet[at] ^= input.arbitrary::<u8>()?;
        }
    } else if damage == 4 && !talk.tcp {
        packet[place..place + 2].fill(0);
    }
    Ok(packet)
}

// ------------------------------------------------------------------------------------- parse

/// Bytes as each kind of packet that is read.
pub fn parse(data: &[u8]) {
    if let Ok(read) = IpPacket::read(data) {
        assert!(read.header_length <= read.total_length && read.total_length <= data.len());
        assert_eq!(read.source.is_ipv4(), read.destination.is_ipv4());
        assert_eq!(traffic_class(data), Ok(read.traffic_class));
    }
    if let Some(length) = inner_length(data) {
        assert!(length + 2 <= data.len());
    }
    let mut written = Vec::new();
    if icmp::append_echo_answer(&mut written, data) == Ok(true) {
        let [question, answer] = [data, &written].map(|one| IpPacket::read(one).expect("both are packets"));
        assert_eq!((question.source, question.destination), (answer.destination, answer.source));
    }
    let Some((limit, data)) =
        data.split_first_chunk().map(|(limit, rest)| (u16::from_be_bytes(*limit), rest))
    else {
        return;
    };
    written.clear();
    if icmp::append_too_big(&mut written, data, limit.into()) == Ok(true) {
        IpPacket::read(&written).expect("a packet of our own");
    }
    let mut changed = data.to_vec();
    if fit::may_be_syn(data) {
        let _ = fit::clamp_mss(&mut changed, limit.into(), None);
        assert_eq!(changed.len(), data.len());
    }
    changed.copy_from_slice(data);
    let _ = ecn::apply_outer(&mut changed, limit as u8);
    let (mut pieces, mut octets) = (0, 0);
    let done = fit::fragment_ipv4(data, limit.into(), |header, piece| {
        pieces += 1;
        octets += piece.len();
        let whole = [header, piece].concat();
        assert_eq!(IpPacket::read(&whole).expect("a fragment is a packet").total_length, whole.len());
    });
    if let (Ok(()), Ok(read)) = (done, IpPacket::read(data)) {
        let data = read.total_length - read.header_length;
        assert!(octets == data && (pieces > 0) == (data > 0));
    }
}
