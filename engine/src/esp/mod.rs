//! ESP packets: seal inner packets in place, open in place what arrives (RFC 4303).
//!
//! A run is a row of packets of one SA and one length in one buffer, each where it will leave from, so that
//! nothing is copied: what `UDP_SEGMENT` sends is the run as it was sealed. Keys are taken once and wiped when
//! the transform is dropped.

mod aead;
mod cbc;
mod mac;
mod suite;

pub use suite::{ALIGNMENT, Encryption, Error, Integrity, Suite};

use aead::Aead;
use cbc::Cbc;

/// SPI and sequence number.
pub const HEADER_LENGTH: usize = 8;
/// Pad length and next header.
pub const TRAILER_LENGTH: usize = 2;
/// The next header of an IPv4 packet.
pub const IPV4: u8 = 4;
/// The next header of an IPv6 packet.
pub const IPV6: u8 = 41;
/// The next header of a dummy packet, which the receiver drops without a trace (RFC 4303 section 2.6).
pub const DUMMY: u8 = 59;

/// Packets that are opened together.
pub const AT_ONCE: usize = mac::AT_ONCE;

/// 1, 2, 3, ...: the first n bytes of it are the default padding of length n (RFC 4303 section 2.4).
const PADDING: [u8; 255] = {
    let mut padding = [0; 255];
    let mut at = 0;
    while at < padding.len() {
        padding[at] = at as u8 + 1;
        at += 1;
    }
    padding
};

/// The keys of one direction. With an AEAD cipher `integrity` is empty and `salt` begins each nonce.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// The key of the cipher.
    pub encryption: &'a [u8],
    /// The key of the HMAC.
    pub integrity: &'a [u8],
    /// The salt of an AEAD cipher.
    pub salt: &'a [u8],
}

/// Bytes of fresh entropy that an outbound SA takes, for the IVs of CBC.
pub const SEED_LENGTH: usize = 32;

enum Transform {
    Aead(Aead),
    Cbc(Box<Cbc>),
}

impl Transform {
    fn new(suite: Suite, keys: Keys<'_>) -> Result<Self, Error> {
        let cipher = suite.encryption();
        match suite.integrity() {
            None => Ok(Self::Aead(Aead::new(cipher, keys)?)),
            Some(hash) => Ok(Self::Cbc(Box::new(Cbc::new(cipher, hash, keys)?))),
        }
    }
}

/// One outbound SA's transform.
pub struct Sealer {
    suite: Suite,
    spi: [u8; 4],
    transform: Transform,
    ivs: cbc::Ivs,
}

/// The AEAD refused to seal. The run must not leave; it has been overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed;

impl Sealer {
    /// The transform for packets that leave under `spi`. `seed` is entropy that nothing else uses.
    ///
    /// # Errors
    /// A key or salt of another length than the suite takes.
    pub fn new(suite: Suite, keys: Keys<'_>, spi: u32, seed: &[u8; SEED_LENGTH]) -> Result<Self, Error> {
        let transform = Transform::new(suite, keys)?;
        Ok(Self { suite, spi: spi.to_be_bytes(), transform, ivs: cbc::Ivs::new(seed) })
    }

    /// The suite, with the sizes of everything.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Seal a run of packets that have `inner` bytes each.
    ///
    /// `run` has `sealed_length(inner)` bytes for each; the packet lies `prefix()` bytes behind its
    /// beginning, and all else is written here. The first packet gets number `sequence`, each further one the
    /// next (64 bits where the SA has them). No number may come twice.
    ///
    /// # Errors
    /// None in practice: the AEAD refuses only what is longer than any packet.
    pub fn seal(
        &mut self,
        run: &mut [u8],
        inner: usize,
        sequence: u64,
        next_header: u8,
    ) -> Result<(), Unsealed> {
        let suite = self.suite;
        let length = suite.sealed_length(inner);
        debug_assert_eq!(run.len() % length, 0, "a run is whole packets");
        let end = length - suite.icv_length();
        let padding = end - suite.prefix() - inner - TRAILER_LENGTH;
        for (packet, number) in numbered(run, length, sequence) {
            packet[..4].copy_from_slice(&self.spi);
            packet[4..8].copy_from_slice(&(number as u32).to_be_bytes());
            packet[end - TRAILER_LENGTH - padding..end - TRAILER_LENGTH].copy_from_slice(&PADDING[..padding]);
            packet[end - 2] = padding as u8;
            packet[end - 1] = next_header;
        }
        match &self.transform {
            Transform::Aead(aead) => aead.seal(suite, run, length, sequence),
            Transform::Cbc(cbc) => {
                cbc.seal(suite, run, length, sequence, &mut self.ivs);
                Ok(())
            }
        }
    }
}

/// One inbound SA's transform.
pub struct Opener {
    suite: Suite,
    transform: Transform,
}

impl Opener {
    /// The transform for packets that arrive.
    ///
    /// # Errors
    /// A key or salt of another length than the suite takes.
    pub fn new(suite: Suite, keys: Keys<'_>) -> Result<Self, Error> {
        Ok(Self { suite, transform: Transform::new(suite, keys)? })
    }

    /// The suite, with the sizes of everything.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Open one ESP packet in place; the plaintext, trailer included.
    ///
    /// None if its ICV does not verify or its length is no multiple of the block; nothing has been decrypted
    /// then that could be used. `sequence` is its 64-bit number, of which an SA with 32 bits ignores the
    /// upper half.
    #[must_use]
    pub fn open<'a>(&self, packet: &'a mut [u8], sequence: u64) -> Option<&'a mut [u8]> {
        let suite = self.suite;
        if !self.may_be_opened(packet.len()) {
            return None;
        }
        match &self.transform {
            Transform::Aead(aead) => aead.open(suite, packet, sequence),
            Transform::Cbc(cbc) => cbc.open(suite, packet, sequence),
        }
    }

    /// Open in place the packets of a group, of `length` bytes each, that `numbers` has a number for; which of them are
    /// open now: their plaintexts are between `prefix()` and the ICV. Of the others, as of `open`.
    pub fn open_group(
        &self,
        group: &mut [u8],
        length: usize,
        numbers: [Option<u64>; AT_ONCE],
    ) -> [bool; AT_ONCE] {
        let suite = self.suite;
        let mut opened = [false; AT_ONCE];
        if !self.may_be_opened(length) {
            return opened;
        }
        match &self.transform {
            Transform::Cbc(cbc) => return cbc.open_group(suite, group, length, numbers),
            Transform::Aead(aead) => {
                let packets = group.chunks_exact_mut(length).zip(numbers);
                for ((packet, number), opened) in packets.zip(&mut opened) {
                    *opened = number.is_some_and(|number| aead.open(suite, packet, number).is_some());
                }
            }
        }
        opened
    }

    /// Whether a packet of so many bytes can be one of the suite's.
    fn may_be_opened(&self, length: usize) -> bool {
        let suite = self.suite;
        length >= suite.minimum()
            && (length - suite.overhead()).is_multiple_of(suite.alignment_of_ciphertext())
    }
}

/// The length of the IP packet at the front of an authenticated plaintext; None if there is none.
///
/// Padding must be 1, 2, 3, ... and the next header must name the version that the packet has. Bytes behind
/// the packet's own length are traffic flow confidentiality padding (RFC 4303 section 2.7).
#[must_use]
pub fn inner_length(plaintext: &[u8]) -> Option<usize> {
    let [content @ .., pad_length, next_header] = plaintext else { return None };
    let padding = &PADDING[..usize::from(*pad_length)];
    let content = content.strip_suffix(padding)?;
    let (least, length) = match *next_header {
        IPV4 => (20, usize::from(u16::from_be_bytes(*content.get(2..4)?.first_chunk()?))),
        IPV6 => (40, usize::from(u16::from_be_bytes(*content.get(4..6)?.first_chunk()?)) + 40),
        _ => return None,
    };
    let version = if *next_header == IPV4 { 4 } else { 6 };
    (content[0] >> 4 == version && least <= length && length <= content.len()).then_some(length)
}

/// Each packet of a run with its number. `sequence..` would count one too far behind the last number of all.
fn numbered(run: &mut [u8], length: usize, sequence: u64) -> impl Iterator<Item = (&mut [u8], u64)> {
    run.chunks_exact_mut(length).enumerate().map(move |(index, packet)| (packet, sequence + index as u64))
}

/// The associated data of an AEAD packet: SPI and sequence number, all 64 bits of it (RFC 4106 section 5).
fn associated(suite: Suite, packet: &[u8], sequence: u64) -> ([u8; 12], usize) {
    let mut data = [0; 12];
    data[..4].copy_from_slice(&packet[..4]);
    if suite.esn() {
        data[4..].copy_from_slice(&sequence.to_be_bytes());
        (data, 12)
    } else {
        data[4..8].copy_from_slice(&packet[4..8]);
        (data, 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPI: u32 = 0xDEAD_BEEF;
    const SEED: [u8; SEED_LENGTH] = [3; SEED_LENGTH];

    fn suites() -> impl Iterator<Item = Suite> {
        let hashes = Integrity::ALL.into_iter().map(Some).chain([None]);
        hashes.flat_map(|hash| {
            let ciphers = Encryption::ALL.into_iter();
            ciphers
                .flat_map(move |cipher| [false, true].map(|esn| Suite::new(cipher, hash, None, esn)))
                .filter_map(Result::ok)
        })
    }

    fn transforms(suite: Suite) -> (Sealer, Opener) {
        let bytes: [u8; 64] = std::array::from_fn(|index| index as u8);
        let keys = Keys {
            encryption: &bytes[..suite.encryption().key_length()],
            integrity: &bytes[..suite.integrity().map_or(0, Integrity::key_length)],
            salt: &bytes[..suite.encryption().salt_length()],
        };
        (
            Sealer::new(suite, keys, SPI, &SEED).expect("keys of the right length"),
            Opener::new(suite, keys).expect("keys of the right length"),
        )
    }

    #[test]
    fn the_table_has_every_suite() {
        assert_eq!(suites().count(), (6 * 6 + 3) * 2);
    }

    #[test]
    fn runs_of_every_length_come_back() {
        for suite in suites() {
            let (mut sealer, opener) = transforms(suite);
            let mut number = if suite.esn() { u64::from(u32::MAX) - 20 } else { 1 };
            for count in [1, 2, 7, 8, 9, 17] {
                for inner in [1, 2, 13, 14, 15, 100] {
                    let length = suite.sealed_length(inner);
                    let mut run = vec![0xEE; length * count];
                    for (index, packet) in run.chunks_exact_mut(length).enumerate() {
                        packet[suite.prefix()..][..inner].fill(index as u8);
                    }
                    assert_eq!(sealer.seal(&mut run, inner, number, IPV4), Ok(()));
                    for (index, packet) in run.chunks_exact_mut(length).enumerate() {
                        let opened = opener.open(packet, number + index as u64).expect("what was sealed");
                        assert_eq!(opened[..inner], vec![index as u8; inner], "{suite:?}");
                        assert_eq!(opened.last(), Some(&IPV4));
                    }
                    number += count as u64;
                }
            }
        }
    }

    #[test]
    fn packets_of_a_group_are_opened_each_by_itself() {
        const INNER: usize = 50;
        for suite in suites() {
            let (mut sealer, opener) = transforms(suite);
            let (length, prefix) = (suite.sealed_length(INNER), suite.prefix());
            let first = if suite.esn() { u64::from(u32::MAX) } else { 1 };
            let mut run = vec![0; length * AT_ONCE];
            for (index, packet) in run.chunks_exact_mut(length).enumerate() {
                packet[prefix..][..INNER].fill(index as u8);
            }
            sealer.seal(&mut run, INNER, first, IPV4).expect("short packets");
            for count in 0..=AT_ONCE {
                for wanted in 0_u8..1 << AT_ONCE {
                    for damaged in 0..AT_ONCE {
                        let mut group = run[..count * length].to_vec();
                        if let Some(packet) = group.chunks_exact_mut(length).nth(damaged) {
                            packet[prefix] ^= 1;
                        }
                        let before = group.clone();
                        let is_wanted = |index: usize| (wanted >> index) & 1 == 1;
                        let numbers = std::array::from_fn(|at| is_wanted(at).then_some(first + at as u64));
                        let opened = opener.open_group(&mut group, length, numbers);
                        for (index, opened) in opened.into_iter().enumerate() {
                            let open = index < count && is_wanted(index) && index != damaged;
                            assert_eq!(opened, open, "{suite:?}, {index} of {count}, {wanted:b}, {damaged}");
                        }
                        let packets = group.chunks_exact(length).zip(before.chunks_exact(length));
                        for (index, (packet, before)) in packets.enumerate() {
                            if opened[index] {
                                assert_eq!(packet[prefix..][..INNER], [index as u8; INNER]);
                            } else if !is_wanted(index) {
                                assert_eq!(packet, before);
                            }
                        }
                    }
                }
            }
            assert_eq!(opener.open_group(&mut run, length - 1, [Some(first); AT_ONCE]), [false; AT_ONCE]);
        }
    }

    #[test]
    fn damage_anywhere_is_found() {
        for suite in suites().filter(|suite| !suite.esn()) {
            let (mut sealer, opener) = transforms(suite);
            let mut packet = vec![7; suite.sealed_length(30)];
            sealer.seal(&mut packet, 30, 5, IPV6).expect("a short packet");
            for at in 0..packet.len() {
                let mut damaged = packet.clone();
                damaged[at] ^= 0x10;
                assert_eq!(opener.open(&mut damaged, 5), None, "{suite:?} at {at}");
            }
        }
    }

    #[test]
    fn nothing_can_be_opened_that_is_too_short() {
        for suite in suites() {
            let (_, opener) = transforms(suite);
            for length in 0..suite.minimum() + suite.alignment() {
                assert_eq!(opener.open(&mut vec![0; length], 1), None);
            }
        }
    }

    #[test]
    fn a_short_key_is_refused_by_its_length_alone() {
        let keys = Keys { encryption: &[1; 15], integrity: &[2; 32], salt: &[] };
        let suite = Suite::of_words("aes-128", Some("sha256"), None, false).expect("a suite of the table");
        let refusal = Opener::new(suite, keys).err().expect("a short key").to_string();
        assert_eq!(refusal, "aes-128 takes a key of 16 bytes, not 15");
    }
}
