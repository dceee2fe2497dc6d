//! HMAC, keyed once for the life of an SA: a copy of the keyed state begins each packet.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;

use super::{Error, Integrity};

/// Bytes of the longest HMAC.
pub(super) const LONGEST: usize = 64;

/// A keyed HMAC of whichever hash.
pub(super) trait Authenticate: Send + Sync {
    /// The HMAC of two pieces that follow each other, at the front of the array.
    fn code(&self, first: &[u8], second: &[u8]) -> [u8; LONGEST];
}

impl<M: Mac + Clone + Send + Sync> Authenticate for M {
    fn code(&self, first: &[u8], second: &[u8]) -> [u8; LONGEST] {
        let mut mac = self.clone();
        mac.update(first);
        mac.update(second);
        let output = mac.finalize().into_bytes();
        let mut code = [0; LONGEST];
        code[..output.len()].copy_from_slice(&output);
        code
    }
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
