//! Nanoseconds that sealing and opening a packet take, for the suites that carry most traffic.

use std::hint::black_box;
use std::time::Instant;

use vpnd_engine::esp::{AT_ONCE, Keys, Opener, Sealer, Suite};
use vpnd_engine::ip::Sum;

const INNER: usize = 1408;
const PACKETS: u16 = 32;
/// The best of so many measurements counts: on a machine that others use too, the least disturbed one.
const TRIES: usize = 2000;

const SUITES: [(&str, Option<&str>); 9] = [
    ("aes-128-gcm", None),
    ("aes-256-gcm", None),
    ("chacha20-poly1305", None),
    ("aes-128", Some("sha256")),
    ("aes-256", Some("sha256")),
    ("aes-128", Some("sha1")),
    ("aes-256", Some("sha512")),
    ("3des", Some("sha1")),
    ("sm4", Some("sm3")),
];

/// The least time that `work` took, for each of `PACKETS`.
fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let began = Instant::now();
        work();
        best = best.min(began.elapsed().as_secs_f64());
    }
    best * 1e9 / f64::from(PACKETS)
}

fn main() {
    let packets: Vec<u8> = (0..INNER * usize::from(PACKETS)).map(|index| index as u8).collect();
    let summing = nanoseconds(|| {
        for packet in packets.chunks(INNER) {
            black_box(Sum::default().with(black_box(packet)).folded());
        }
    });
    println!("ns a packet of {INNER} bytes, in runs of {PACKETS}; its checksum {summing:.0}");
    println!("{:30} {:>8} {:>10} {:>8}", "suite", "seal", "one by one", "open");
    for (cipher, hash) in SUITES {
        let suite = Suite::of_words(cipher, hash, None, false).expect("a suite of the table");
        let bytes = [7; 64];
        let keys = Keys {
            encryption: &bytes[..suite.encryption().key_length()],
            integrity: &bytes[..suite.integrity().map_or(0, vpnd_engine::esp::Integrity::key_length)],
            salt: &bytes[..suite.encryption().salt_length()],
        };
        let mut sealer = Sealer::new(suite, keys, 0x1234, &[9; 32]).expect("keys of the right length");
        let opener = Opener::new(suite, keys).expect("keys of the right length");
        let length = suite.sealed_length(INNER);
        let mut run = vec![0; length * usize::from(PACKETS)];
        let mut number = 1;
        let mut seal = |run: &mut [u8]| {
            let count = run.len() / length;
            sealer.seal(black_box(run), INNER, number, 4).expect("a packet of this length");
            number += count as u64;
        };
        let in_runs = nanoseconds(|| seal(&mut run));
        let alone = nanoseconds(|| run.chunks_exact_mut(length).for_each(&mut seal));
        // Opening garbles the packets, so each group begins as a copy, which takes part of what is shown.
        let group = run[..length * AT_ONCE].to_vec();
        let first = u64::from(u32::from_be_bytes([group[4], group[5], group[6], group[7]]));
        let numbers = std::array::from_fn(|at| Some(first + at as u64));
        let mut place = group.clone();
        let opening = nanoseconds(|| {
            for _ in 0..usize::from(PACKETS) / AT_ONCE {
                place.copy_from_slice(&group);
                let opened = opener.open_group(black_box(&mut place), length, numbers);
                assert_eq!(opened, [true; AT_ONCE]);
            }
        });
        let name = hash.map_or_else(|| cipher.to_owned(), |hash| format!("{cipher} {hash}"));
        println!("{name:30} {in_runs:8.0} {alone:10.0} {opening:8.0}");
    }
}
