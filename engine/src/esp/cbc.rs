//! CBC with HMAC: AES (RFC 3602), 3DES (RFC 2451), DES (RFC 2405), SM4.
//!
//! In CBC each block waits for the one before it, so a single packet leaves the cipher idle most of the time.
//! The packets of a run do not depend on each other: they are encrypted a block of each in turn.

use aes::{Aes128, Aes192, Aes256};
use cbc::Decryptor;
use cipher::array::{Array, ArraySize};
use cipher::{
    BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockModeDecrypt,
    BlockSizeUser, InnerIvInit, KeyInit,
};
use des::{Des, TdesEde3};
use sm4::Sm4;
use subtle::ConstantTimeEq;

use super::mac::{AT_ONCE, Authenticate, Code, keyed};
use super::{Encryption, Error, HEADER_LENGTH, Integrity, Keys, SEED_LENGTH, Suite};

/// Ours: packets that are encrypted in turn. AES of one block takes ten dependent steps, and a processor has as
/// many blocks under way as it has registers for.
const LANES: usize = 8;

/// Bytes of the longest block.
const LONGEST_BLOCK: usize = 16;

pub(super) struct Cbc {
    cipher: Box<dyn BlockMode>,
    mac: Box<dyn Authenticate>,
}

impl Cbc {
    pub(super) fn new(cipher: Encryption, hash: Integrity, keys: Keys<'_>) -> Result<Self, Error> {
        let key = keys.encryption;
        let made = match cipher {
            Encryption::Aes128 => make::<Aes128>(key),
            Encryption::Aes192 => make::<Aes192>(key),
            Encryption::Aes256 => make::<Aes256>(key),
            Encryption::TripleDes => make::<TdesEde3>(key),
            Encryption::Des => make::<Des>(key),
            Encryption::Sm4 => make::<Sm4>(key),
            _ => return Err(Error::Suite),
        };
        let cipher = made.ok_or(Error::Length {
            word: cipher.word(),
            what: "key",
            takes: cipher.key_length(),
            given: key.len(),
        })?;
        Ok(Self { cipher, mac: keyed(hash, keys.integrity)? })
    }

    pub(super) fn seal(&self, suite: Suite, run: &mut [u8], length: usize, sequence: u64, ivs: &mut Ivs) {
        let end = length - suite.icv_length();
        for packet in run.chunks_exact_mut(length) {
            ivs.fill(&mut packet[HEADER_LENGTH..suite.prefix()]);
        }
        self.cipher.encrypt(run, length, end);
        for (index, group) in run.chunks_mut(length * AT_ONCE).enumerate() {
            // Of the last number that there is, none follows.
            let numbers =
                std::array::from_fn(|at| Some(sequence.wrapping_add((index * AT_ONCE + at) as u64)));
            let codes = self.codes(suite, group, length, numbers);
            for (packet, code) in group.chunks_exact_mut(length).zip(&codes) {
                packet[end..].copy_from_slice(&code[..suite.icv_length()]);
            }
        }
    }

    pub(super) fn open<'a>(&self, suite: Suite, packet: &'a mut [u8], sequence: u64) -> Option<&'a mut [u8]> {
        let high = high_of(sequence);
        let (covered, _) = packet.split_at(packet.len() - suite.icv_length());
        let code = self.mac.code([covered, if suite.esn() { &high[..] } else { &[] }]);
        self.decrypt(suite, packet, &code)
    }

    pub(super) fn open_group(
        &self,
        suite: Suite,
        group: &mut [u8],
        length: usize,
        numbers: [Option<u64>; AT_ONCE],
    ) -> [bool; AT_ONCE] {
        let codes = self.codes(suite, group, length, numbers);
        let mut opened = [false; AT_ONCE];
        let packets = group.chunks_exact_mut(length).zip(numbers).zip(&codes);
        for (((packet, number), code), opened) in packets.zip(&mut opened) {
            *opened = number.is_some() && self.decrypt(suite, packet, code).is_some();
        }
        opened
    }

    /// Decrypt a packet if its ICV is the beginning of `code`.
    fn decrypt<'a>(&self, suite: Suite, packet: &'a mut [u8], code: &Code) -> Option<&'a mut [u8]> {
        let (covered, received) = packet.split_at_mut(packet.len() - suite.icv_length());
        if !bool::from(code[..received.len()].ct_eq(received)) {
            return None;
        }
        let (iv, body) = covered[HEADER_LENGTH..].split_at_mut(suite.encryption().block());
        self.cipher.decrypt(iv, body);
        Some(body)
    }

    /// The HMAC of each packet that is there and has a number, of which the suite's first bytes travel.
    fn codes(
        &self,
        suite: Suite,
        group: &[u8],
        length: usize,
        numbers: [Option<u64>; AT_ONCE],
    ) -> [Code; AT_ONCE] {
        let high = numbers.map(|number| high_of(number.unwrap_or_default()));
        let mut packets = group.chunks_exact(length);
        self.mac.codes(std::array::from_fn(|at| {
            let packet = packets.next()?;
            numbers[at]?;
            let covered = &packet[..length - suite.icv_length()];
            Some([covered, if suite.esn() { &high[at][..] } else { &[] }])
        }))
    }
}

/// The upper half of a number, which is authenticated and does not travel (RFC 4303 section 2.2.1).
fn high_of(sequence: u64) -> [u8; 4] {
    ((sequence >> 32) as u32).to_be_bytes()
}

/// The cipher with a key; None if the key has another length.
fn make<C: BlockMode + KeyInit + 'static>(key: &[u8]) -> Option<Box<dyn BlockMode>> {
    Some(Box::new(C::new_from_slice(key).ok()?))
}

/// IVs that nobody can predict: a counter under a key that is drawn for this SA and used for nothing else
/// (NIST SP 800-38A appendix C).
pub(super) struct Ivs {
    cipher: Aes256,
    counter: u128,
}

impl Ivs {
    pub(super) fn new(seed: &[u8; SEED_LENGTH]) -> Self {
        Self { cipher: Aes256::new(&Array(*seed)), counter: 0 }
    }

    /// The next IV, of at most `LONGEST_BLOCK` bytes.
    fn fill(&mut self, iv: &mut [u8]) {
        let mut block = Array::<u8, <Aes256 as BlockSizeUser>::BlockSize>::from(self.counter.to_be_bytes());
        self.counter += 1;
        self.cipher.encrypt_block(&mut block);
        iv.copy_from_slice(&block[..iv.len()]);
    }
}

const _: () = assert!(LONGEST_BLOCK == size_of::<u128>());

/// A block cipher in CBC mode.
trait BlockMode: Send + Sync {
    /// Encrypt each packet of `length` bytes from the end of its IV to `end`.
    fn encrypt(&self, run: &mut [u8], length: usize, end: usize);
    /// Decrypt whole blocks in place.
    fn decrypt(&self, iv: &[u8], body: &mut [u8]);
}

impl<C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync> BlockMode for C {
    fn encrypt(&self, run: &mut [u8], length: usize, end: usize) {
        for lanes in run.chunks_mut(length * LANES) {
            self.encrypt_with_backend(InTurn { lanes, length, end, size: std::marker::PhantomData });
        }
    }

    fn decrypt(&self, iv: &[u8], body: &mut [u8]) {
        let Ok(iv) = Array::try_from(iv) else { return };
        let (blocks, _) = Array::slice_as_chunks_mut(body);
        Decryptor::inner_iv_init(self, &iv).decrypt_blocks(blocks);
    }
}

/// CBC encryption of at most `LANES` packets, a block of each in turn.
///
/// A closure for the cipher's backend, so that all of it is compiled for the processor's instructions.
struct InTurn<'a, N> {
    lanes: &'a mut [u8],
    length: usize,
    end: usize,
    size: std::marker::PhantomData<N>,
}

impl<N: ArraySize> BlockSizeUser for InTurn<'_, N> {
    type BlockSize = N;
}

impl<N: ArraySize> BlockCipherEncClosure for InTurn<'_, N> {
    #[expect(clippy::inline_always, reason = "else it is compiled without the processor's instructions")]
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = N>>(self, backend: &B) {
        let mut chain: [Array<u8, N>; LANES] = Default::default();
        let first = HEADER_LENGTH + N::USIZE;
        for (packet, before) in self.lanes.chunks_exact(self.length).zip(&mut chain) {
            before.copy_from_slice(&packet[HEADER_LENGTH..first]);
        }
        for at in (first..self.end).step_by(N::USIZE) {
            for (packet, before) in self.lanes.chunks_exact_mut(self.length).zip(&mut chain) {
                let block = &mut packet[at..at + N::USIZE];
                before.iter_mut().zip(&*block).for_each(|(into, byte)| *into ^= byte);
                backend.encrypt_block_inplace(before);
                block.copy_from_slice(before);
            }
        }
    }
}
