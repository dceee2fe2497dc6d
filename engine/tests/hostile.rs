//! Bytes that nobody would send in good faith, through everything that reads what others wrote: decapsulation,
//! the joining of what came out, the splitting of a TUN's reads, selectors and ICMP errors.
//!
//! What is looked for is a panic. `ENGINE_ROUNDS` says how many packets; each failure repeats, for the numbers come
//! from the round alone.

use std::net::IpAddr;

use vpnd_engine::engine::Engine;
use vpnd_engine::esp::{Keys, Sealer, Suite};
use vpnd_engine::inbound::{Datagram, Incoming};
use vpnd_engine::interface::{Endpoint, PolicyRow};
use vpnd_engine::outbound::Outgoing;
use vpnd_engine::sad::Child;
use vpnd_engine::spd::{ANY_PORT, Selector};
use vpnd_engine::split::Read;

const TUNNEL: u32 = 1;
const SPI: u32 = 0x1001;
const SEED: [u8; 32] = [5; 32];

/// Numbers that follow from a first one (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(round: u64) -> Self {
        Self(round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }
}

fn rounds() -> u64 {
    std::env::var("ENGINE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// A packet that is nearly one of IPv4 or IPv6.
fn packet(dice: &mut Dice) -> Vec<u8> {
    let six = dice.one_in(3);
    let header = if six { 40 } else { 20 };
    let size = [20, 28, 60, 200, 1300][dice.below(5)] + dice.below(40);
    let mut packet = if dice.one_in(2) { dice.bytes(header + size) } else { vec![0; header + size] };
    let protocol = [6, 6, 6, 17, 1, 58, 0, 43, 44, 51, 60, 59][dice.below(12)];
    let total = packet.len() as u16;
    if six {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(total - 40).to_be_bytes());
        packet[6] = protocol;
        packet[8] = 0xFD;
        packet[24] = 0xFD;
    } else {
        packet[0] = 0x40 | if dice.one_in(8) { dice.below(16) as u8 } else { 5 };
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[6..8].copy_from_slice(&[if dice.one_in(4) { dice.roll() as u8 } else { 0x40 }, 0]);
        packet[9] = protocol;
        packet[12] = 10;
        packet[16] = 10;
    }
    if protocol == 6 {
        packet[header + 12] = if dice.one_in(4) { dice.roll() as u8 } else { 0x50 };
        packet[header + 13] = [0x10, 0x10, 0x18, 0x02, 0xFF][dice.below(5)];
    }
    for _ in 0..if dice.one_in(2) { dice.below(4) } else { 0 } {
        let at = dice.below(packet.len());
        packet[at] = dice.roll() as u8;
    }
    if dice.one_in(6) {
        let left = dice.below(packet.len() + 1);
        packet.truncate(left);
    }
    packet
}

fn everything() -> Box<[Selector]> {
    [("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
        .map(|(first, last)| {
            let [first, last] = [first, last].map(|text| text.parse().expect("an address"));
            Selector::new(first, last, 0, ANY_PORT).expect("a range")
        })
        .into()
}

struct Parties {
    engine: Engine,
    sealer: Sealer,
    suite: Suite,
    peer: Endpoint,
}

fn parties(dice: &mut Dice) -> Parties {
    let (cipher, hash) =
        [("aes-128-gcm", None), ("chacha20-poly1305", None), ("aes-128", Some("sha256"))][dice.below(3)];
    let suite = Suite::of_words(cipher, hash, None, dice.one_in(2)).expect("a suite of the table");
    let bytes = [7; 64];
    let keys = Keys {
        encryption: &bytes[..suite.encryption().key_length()],
        integrity: &bytes[..suite.integrity().map_or(0, vpnd_engine::esp::Integrity::key_length)],
        salt: &bytes[..suite.encryption().salt_length()],
    };
    let peer = Endpoint { address: "192.0.2.2".parse().expect("an address"), port: 4500 };
    let local = Endpoint { address: "192.0.2.1".parse().expect("an address"), port: 4500 };
    let mut engine = Engine::new();
    let vnet_header = !dice.one_in(4);
    assert!(engine.add_tunnel(TUNNEL, vnet_header));
    engine.join_udp(TUNNEL, vnet_header);
    let row = PolicyRow { mapping: 0, local: everything(), remote: everything() };
    engine.replace_policies(TUNNEL, Box::new([row]));
    let probed: [IpAddr; 2] = ["10.0.0.0", "10.0.0.0"].map(|text| text.parse().expect("an address"));
    engine.answer_probes(TUNNEL, probed[0], probed[1]);
    let child = Child {
        tunnel: TUNNEL,
        mapping: 0,
        spi_in: SPI,
        spi_out: SPI + 1,
        suite,
        ts_local: everything(),
        ts_remote: everything(),
        local,
        remote: peer,
        udp: true,
        soft_bytes: dice.one_in(4).then_some(2000),
        hard_bytes: dice.one_in(4).then_some(4000),
        replay_window: 64,
    };
    engine
        .install(0.0, child, [keys; 2], &SEED, true, &mut Outgoing::default())
        .expect("keys of the right length");
    let sealer = Sealer::new(suite, keys, SPI, &SEED).expect("keys of the right length");
    Parties { engine, sealer, suite, peer }
}

/// The ESP packet around some bytes, whatever they are.
fn sealed(parties: &mut Parties, inner: &[u8], number: u64, next_header: u8) -> Vec<u8> {
    let inner = if inner.is_empty() { &[0] } else { inner };
    let mut run = vec![0; parties.suite.sealed_length(inner.len())];
    run[parties.suite.prefix()..][..inner.len()].copy_from_slice(inner);
    parties.sealer.seal(&mut run, inner.len(), number, next_header).expect("a short packet");
    run
}

#[test]
fn decapsulate_and_join() {
    let (mut out, mut incoming) = (Outgoing::default(), Incoming::default());
    let mut written = 0;
    for round in 0..rounds() / 10 {
        let dice = &mut Dice::new(round);
        let mut parties = parties(dice);
        for number in 1..10_u32 {
            let mut data = Vec::new();
            let mut length = 0;
            let inner = packet(dice);
            for step in 0..=dice.below(4) as u64 {
                let next_header = if dice.one_in(8) {
                    dice.roll() as u8
                } else {
                    [4, 41][usize::from(inner.first().is_some_and(|first| first >> 4 == 6))]
                };
                let mut esp = sealed(&mut parties, &inner, u64::from(number) * 4 + step, next_header);
                if dice.one_in(6) {
                    let at = dice.below(esp.len());
                    esp[at] ^= 1 << dice.below(8);
                }
                length = esp.len();
                data.extend_from_slice(&esp);
            }
            let tail = if dice.one_in(4) { dice.below(40) } else { 0 };
            data.extend(dice.bytes(tail));
            if dice.one_in(6) {
                length = dice.below(data.len() + 2);
            }
            let left = data.len() - if dice.one_in(6) { dice.below(data.len() + 1) } else { 0 };
            let datagram = Datagram {
                data: &mut data[..left],
                length,
                traffic_class: if dice.one_in(3) { dice.roll() as u8 } else { 0 },
                sender: parties.peer,
                port: if dice.one_in(4) { 0 } else { 4500 },
            };
            out.clear();
            incoming.clear();
            parties.engine.receive(f64::from(number), [datagram], &mut out, &mut incoming);
            written += incoming.writes().map(|(_, write)| write.len()).sum::<usize>();
        }
    }
    assert!(written > 0, "nothing came through, so nothing was tried");
}

#[test]
fn split_and_encapsulate() {
    let mut out = Outgoing::default();
    let mut split = 0;
    for round in 0..rounds() / 4 {
        let dice = &mut Dice::new(round);
        let mut parties = parties(dice);
        let reads: Vec<_> = (0..4)
            .map(|_| {
                let packet = packet(dice);
                let kind = [0, 1, 4, 5, 0x81, 3][dice.below(6)];
                let mut read = vec![u8::from(dice.one_in(2)), kind];
                let numbers = [0, dice.below(1500), dice.below(80), dice.below(20)];
                for number in numbers {
                    read.extend_from_slice(&(number as u16).to_ne_bytes());
                }
                read.extend_from_slice(&packet);
                if dice.one_in(8) {
                    read.truncate(dice.below(12));
                }
                read
            })
            .collect();
        for read in &reads {
            if let Ok(read) = Read::new(read) {
                for index in 0..read.count() {
                    let mut segment = vec![0; read.length(index)];
                    read.write(index, &mut segment);
                    split += segment.len();
                }
            }
        }
        out.clear();
        parties.engine.send_reads(1.0, TUNNEL, reads.iter().map(Vec::as_slice), &mut out);
        for train in out.trains() {
            assert!(out.packets_of(train).len() >= train.length);
        }
    }
    assert!(split > 0, "nothing was split, so nothing was tried");
}
