//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634), by AWS-LC.
//!
//! The IV is the sequence number, which no key sees twice. AWS-LC wipes the key's memory when it is freed.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use zeroize::{Zeroize, Zeroizing};

use super::{Encryption, Error, HEADER_LENGTH, Keys, Suite, Unsealed, associated, numbered};

const SALT_LENGTH: usize = 4;
const IV_LENGTH: usize = 8;
const PREFIX: usize = HEADER_LENGTH + IV_LENGTH;

pub(super) struct Aead {
    key: LessSafeKey,
    salt: Zeroizing<[u8; SALT_LENGTH]>,
}

impl Aead {
    pub(super) fn new(cipher: Encryption, keys: Keys<'_>) -> Result<Self, Error> {
        let algorithm = match cipher {
            Encryption::Aes128Gcm => &AES_128_GCM,
            Encryption::Aes256Gcm => &AES_256_GCM,
            Encryption::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            _ => return Err(Error::Suite),
        };
        let wrong = |what, takes, given: &[u8]| Error::Length {
            word: cipher.word(),
            what,
            takes,
            given: given.len(),
        };
        let key = UnboundKey::new(algorithm, keys.encryption)
            .map_err(|_| wrong("key", cipher.key_length(), keys.encryption))?;
        let salt = keys.salt.try_into().map_err(|_| wrong("salt", SALT_LENGTH, keys.salt))?;
        Ok(Self { key: LessSafeKey::new(key), salt: Zeroizing::new(salt) })
    }

    fn nonce(&self, iv: &[u8]) -> Nonce {
        let mut nonce = [0; SALT_LENGTH + IV_LENGTH];
        nonce[..SALT_LENGTH].copy_from_slice(&*self.salt);
        nonce[SALT_LENGTH..].copy_from_slice(iv);
        Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn seal(
        &self,
        suite: Suite,
        run: &mut [u8],
        length: usize,
        sequence: u64,
    ) -> Result<(), Unsealed> {
        let end = length - suite.icv_length();
        let sealed = numbered(run, length, sequence).try_for_each(|(packet, number)| {
            packet[HEADER_LENGTH..PREFIX].copy_from_slice(&number.to_be_bytes());
            let nonce = self.nonce(&packet[HEADER_LENGTH..PREFIX]);
            let (data, used) = associated(suite, packet, number);
            let place = &mut packet[PREFIX..end];
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&data[..used]), place)?;
            packet[end..].copy_from_slice(tag.as_ref());
            Ok::<(), Unspecified>(())
        });
        sealed.map_err(|Unspecified| {
            run.zeroize();
            Unsealed
        })
    }

    pub(super) fn open<'a>(&self, suite: Suite, packet: &'a mut [u8], sequence: u64) -> Option<&'a mut [u8]> {
        let nonce = self.nonce(&packet[HEADER_LENGTH..PREFIX]);
        let (data, used) = associated(suite, packet, sequence);
        self.key.open_in_place(nonce, Aad::from(&data[..used]), &mut packet[PREFIX..]).ok()
    }
}
