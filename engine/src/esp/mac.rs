//! HMAC, keyed once for the life of an SA: a copy of the keyed state begins each packet.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::block_api::compress256;
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;
use zeroize::Zeroizing;

use super::{Error, Integrity};
use crate::sha256::{BEGIN, BLOCK, LANES, State};
use crate::sys;

/// Bytes of the longest HMAC.
pub(super) const LONGEST: usize = 64;

/// Messages that are authenticated together.
pub(super) const AT_ONCE: usize = LANES;

/// Two pieces that follow each other, the second one of a few bytes.
pub(super) type Message<'a> = [&'a [u8]; 2];

/// An HMAC at the front of as many bytes as the longest one has.
pub(super) type Code = [u8; LONGEST];

/// A keyed HMAC of whichever hash.
pub(super) trait Authenticate: Send + Sync {
    /// The HMAC of a message.
    fn code(&self, message: Message<'_>) -> Code;

    /// The HMACs of several messages of one length; of a place without one, anything.
    fn codes(&self, messages: [Option<Message<'_>>; AT_ONCE]) -> [Code; AT_ONCE] {
        messages.map(|message| message.map_or([0; LONGEST], |message| self.code(message)))
    }
}

impl<M: Mac + Clone + Send + Sync> Authenticate for M {
    fn code(&self, [first, second]: Message<'_>) -> Code {
        let mut mac = self.clone();
        mac.update(first);
        mac.update(second);
        padded(&mac.finalize().into_bytes())
    }
}

fn padded(hmac: &[u8]) -> Code {
    let mut code = [0; LONGEST];
    code[..hmac.len()].copy_from_slice(hmac);
    code
}

/// The HMAC of a hash with a key, which has the hash's length.
pub(super) fn keyed(hash: Integrity, key: &[u8]) -> Result<Box<dyn Authenticate>, Error> {
    let wrong =
        || Error::Length { word: hash.word(), what: "key", takes: hash.key_length(), given: key.len() };
    if key.len() != hash.key_length() {
        return Err(wrong());
    }
    match hash {
        Integrity::Md5 => make::<Hmac<Md5>>(key),
        Integrity::Sha1 => make::<Hmac<Sha1>>(key),
        Integrity::Sha256 if sys::has_sha256() => {
            InTurn::new(key).map(|made| Box::new(made) as Box<dyn Authenticate>)
        }
        Integrity::Sha256 => make::<Hmac<Sha256>>(key),
        Integrity::Sha384 => make::<Hmac<Sha384>>(key),
        Integrity::Sha512 => make::<Hmac<Sha512>>(key),
        Integrity::Sm3 => make::<Hmac<Sm3>>(key),
    }
    .ok_or_else(wrong)
}

fn make<M: Mac + KeyInit + Clone + Send + Sync + 'static>(key: &[u8]) -> Option<Box<dyn Authenticate>> {
    Some(Box::new(<M as KeyInit>::new_from_slice(key).ok()?))
}

/// HMAC with SHA-256, of several messages in turn (RFC 2104).
struct InTurn {
    alone: Hmac<Sha256>,
    /// What the hashes have come to after the block that the key makes.
    inner: Zeroizing<State>,
    outer: Zeroizing<State>,
}

impl InTurn {
    /// None if the key is longer than a block.
    fn new(key: &[u8]) -> Option<Self> {
        let begun = |filler: u8| {
            let mut block = Zeroizing::new([filler; BLOCK]);
            block.iter_mut().zip(key).for_each(|(into, byte)| *into ^= byte);
            let mut state = Zeroizing::new(BEGIN);
            compress256(&mut state, std::slice::from_ref(&*block));
            state
        };
        let alone = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
        (key.len() <= BLOCK).then(|| Self { alone, inner: begun(0x36), outer: begun(0x5C) })
    }
}

impl Authenticate for InTurn {
    fn code(&self, message: Message<'_>) -> Code {
        self.alone.code(message)
    }

    fn codes(&self, messages: [Option<Message<'_>>; AT_ONCE]) -> [Code; AT_ONCE] {
        let mut there = messages.iter().flatten();
        let (Some(first), Some(_)) = (there.next(), there.next()) else {
            return self.alone.codes(messages);
        };
        // A place without a message costs as much as one with it: two alone take as long as all together.
        let messages = messages.map(|message| message.unwrap_or(*first));
        let mut states = [*self.inner; LANES];
        let pieces = messages.map(|[first, second]| (first.as_chunks::<BLOCK>(), second));
        sys::compress_sha256(&mut states, pieces.map(|((whole, _), _)| whole));
        let ends = pieces.map(|((whole, rest), second)| End::of([rest, second], BLOCK + size_of_val(whole)));
        sys::compress_sha256(&mut states, ends.each_ref().map(End::blocks));
        let ends = states.map(|state| End::of([&bytes_of(state), &[]], BLOCK));
        states = [*self.outer; LANES];
        sys::compress_sha256(&mut states, ends.each_ref().map(End::blocks));
        states.map(|state| padded(&bytes_of(state)))
    }
}

/// The last blocks of a message, its length included (FIPS 180-4 section 5.1.1).
struct End {
    bytes: [u8; 2 * BLOCK],
    count: usize,
}

impl End {
    /// Of what is left of a message, less than a block and a few bytes, behind `before` bytes.
    fn of([first, second]: Message<'_>, before: usize) -> Self {
        let mut bytes = [0; 2 * BLOCK];
        let length = first.len() + second.len();
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..length].copy_from_slice(second);
        bytes[length] = 0x80;
        let bits = (8 * (before + length) as u64).to_be_bytes();
        let count = (length + 1 + bits.len()).div_ceil(BLOCK);
        bytes[count * BLOCK - bits.len()..count * BLOCK].copy_from_slice(&bits);
        Self { bytes, count }
    }

    fn blocks(&self) -> &[[u8; BLOCK]] {
        &self.bytes.as_chunks::<BLOCK>().0[..self.count]
    }
}

fn bytes_of(state: State) -> [u8; size_of::<State>()] {
    let mut bytes = [0; size_of::<State>()];
    for (place, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [0xA7; 32];

    #[test]
    fn together_they_have_the_codes_of_each_alone() {
        let alone = <Hmac<Sha256> as KeyInit>::new_from_slice(&KEY).expect("a key");
        let together = InTurn::new(&KEY).expect("a key of less than a block");
        let data: [u8; 2000] = std::array::from_fn(|index| (index * index / 7) as u8);
        let seconds: [[u8; 4]; AT_ONCE] = std::array::from_fn(|index| [index as u8; 4]);
        for length in (0..200).chain([1432, 1984]) {
            for esn in [false, true] {
                for there in 0_u8..1 << AT_ONCE {
                    let messages: [Option<Message<'_>>; AT_ONCE] = std::array::from_fn(|index| {
                        let second = if esn { &seconds[index][..] } else { &[] };
                        ((there >> index) & 1 == 1).then_some([&data[index..][..length], second])
                    });
                    let codes = together.codes(messages);
                    for (message, code) in messages.into_iter().zip(codes) {
                        if let Some(message) = message {
                            assert_eq!(code, alone.code(message), "{length} bytes, {there:b}");
                        }
                    }
                }
            }
        }
    }
}
