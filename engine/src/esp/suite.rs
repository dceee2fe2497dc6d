//! The ESP rows of vpnd's table of algorithms (`vpnd.crypto.suites`): words and sizes in bytes.

use std::fmt;

/// The ICV begins on a 4-byte boundary even without a block cipher (RFC 4303 section 2.4).
pub const ALIGNMENT: usize = 4;

/// A cipher, by its configuration word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `aes-128`: AES-CBC (RFC 3602).
    Aes128,
    /// `aes-192`: AES-CBC (RFC 3602).
    Aes192,
    /// `aes-256`: AES-CBC (RFC 3602).
    Aes256,
    /// `aes-128-gcm` with an ICV of 16 bytes (RFC 4106).
    Aes128Gcm,
    /// `aes-256-gcm` with an ICV of 16 bytes (RFC 4106).
    Aes256Gcm,
    /// `chacha20-poly1305` (RFC 7634).
    ChaCha20Poly1305,
    /// `3des`: 3DES-CBC (RFC 2451).
    TripleDes,
    /// `des`: DES-CBC (RFC 2405).
    Des,
    /// `sm4`: SM4-CBC (GM/T 0022).
    Sm4,
}

impl Encryption {
    /// Every cipher of the table.
    pub const ALL: [Self; 9] = [
        Self::Aes128,
        Self::Aes192,
        Self::Aes256,
        Self::Aes128Gcm,
        Self::Aes256Gcm,
        Self::ChaCha20Poly1305,
        Self::TripleDes,
        Self::Des,
        Self::Sm4,
    ];

    /// The configuration word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Aes128 => "aes-128",
            Self::Aes192 => "aes-192",
            Self::Aes256 => "aes-256",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::TripleDes => "3des",
            Self::Des => "des",
            Self::Sm4 => "sm4",
        }
    }

    /// Bytes of the key, without the salt.
    #[must_use]
    pub const fn key_length(self) -> usize {
        match self {
            Self::Des => 8,
            Self::Aes128 | Self::Aes128Gcm | Self::Sm4 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Whether it authenticates as well, so that no integrity algorithm goes with it.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305)
    }

    /// What the ciphertext is a multiple of.
    #[must_use]
    pub const fn block(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 1,
            Self::TripleDes | Self::Des => 8,
            Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::Sm4 => 16,
        }
    }

    /// Bytes of the IV in each packet.
    #[must_use]
    pub const fn iv_length(self) -> usize {
        if self.is_aead() { 8 } else { self.block() }
    }

    /// Bytes of the salt that begins each nonce of an AEAD cipher.
    #[must_use]
    pub const fn salt_length(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }
}

/// Bytes of every AEAD cipher's ICV.
const AEAD_ICV: usize = 16;

/// A hash whose HMAC protects the packets of a cipher that is not AEAD, by its configuration word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// `md5`: HMAC-MD5-96 (RFC 2403).
    Md5,
    /// `sha1`: HMAC-SHA-1-96 (RFC 2404).
    Sha1,
    /// `sha256`: HMAC-SHA-256-128 (RFC 4868).
    Sha256,
    /// `sha384`: HMAC-SHA-384-192 (RFC 4868).
    Sha384,
    /// `sha512`: HMAC-SHA-512-256 (RFC 4868).
    Sha512,
    /// `sm3`: HMAC-SM3 (GM/T 0022).
    Sm3,
}

impl Integrity {
    /// Every hash of the table.
    pub const ALL: [Self; 6] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3];

    /// The configuration word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3",
        }
    }

    /// Bytes of the key, which are those of the hash.
    #[must_use]
    pub const fn key_length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Bytes of the HMAC that travel, where the suite says nothing else.
    #[must_use]
    pub const fn icv_length(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 | Self::Sm3 => 12,
            Self::Sha256 => 16,
            Self::Sha384 => 24,
            Self::Sha512 => 32,
        }
    }
}

/// The algorithms of one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    encryption: Encryption,
    integrity: Option<Integrity>,
    icv: usize,
    esn: bool,
}

impl Suite {
    /// A cipher, the hash that goes with it, and whether sequence numbers have 64 bits.
    ///
    /// `icv` is in bytes, where it is not the table's: HMAC-SHA-256-96 and HMAC-SM3.
    ///
    /// # Errors
    /// An AEAD cipher with a hash, another cipher without one, and an ICV that the hash cannot give.
    pub const fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        icv: Option<usize>,
        esn: bool,
    ) -> Result<Self, Error> {
        let icv = match (integrity, icv) {
            (None, None) if encryption.is_aead() => AEAD_ICV,
            (Some(hash), None) if !encryption.is_aead() => hash.icv_length(),
            // The key of an HMAC has the length of its hash.
            (Some(hash), Some(icv)) if !encryption.is_aead() && icv > 0 && icv <= hash.key_length() => icv,
            _ => return Err(Error::Suite),
        };
        Ok(Self { encryption, integrity, icv, esn })
    }

    /// The suite of configuration words.
    ///
    /// # Errors
    /// As `new`, and for a word that the table does not have.
    pub fn of_words(
        encryption: &str,
        integrity: Option<&str>,
        icv: Option<usize>,
        esn: bool,
    ) -> Result<Self, Error> {
        let cipher = Encryption::ALL.into_iter().find(|row| row.word() == encryption).ok_or(Error::Word)?;
        let hash = match integrity {
            None => None,
            Some(word) => Some(Integrity::ALL.into_iter().find(|row| row.word() == word).ok_or(Error::Word)?),
        };
        Self::new(cipher, hash, icv, esn)
    }

    /// The cipher.
    #[must_use]
    pub const fn encryption(self) -> Encryption {
        self.encryption
    }

    /// The hash; none with an AEAD cipher.
    #[must_use]
    pub const fn integrity(self) -> Option<Integrity> {
        self.integrity
    }

    /// Bytes of the ICV.
    #[must_use]
    pub const fn icv_length(self) -> usize {
        self.icv
    }

    /// Whether sequence numbers have 64 bits (RFC 4303 section 2.2.1).
    #[must_use]
    pub const fn esn(self) -> bool {
        self.esn
    }

    /// What inner packet, padding and trailer together are a multiple of.
    #[must_use]
    pub const fn alignment(self) -> usize {
        if self.encryption.block() > ALIGNMENT { self.encryption.block() } else { ALIGNMENT }
    }

    /// Bytes of ESP header and IV: where the inner packet begins.
    #[must_use]
    pub const fn prefix(self) -> usize {
        super::HEADER_LENGTH + self.encryption.iv_length()
    }

    /// Bytes of ESP header, IV and ICV; padding and trailer are not in it.
    #[must_use]
    pub const fn overhead(self) -> usize {
        self.prefix() + self.icv
    }

    /// Bytes of the ESP packet around an inner packet of `inner` bytes.
    #[must_use]
    pub const fn sealed_length(self, inner: usize) -> usize {
        self.overhead() + (inner + super::TRAILER_LENGTH).next_multiple_of(self.alignment())
    }

    /// Bytes of the shortest ESP packet that can be one of this suite's.
    #[must_use]
    pub const fn minimum(self) -> usize {
        self.overhead() + self.alignment_of_ciphertext()
    }

    /// What the ciphertext is a multiple of.
    pub(super) const fn alignment_of_ciphertext(self) -> usize {
        if self.encryption.is_aead() { ALIGNMENT } else { self.encryption.block() }
    }
}

/// Why there is no transform for a suite and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The table has no such word.
    Word,
    /// The algorithms do not go together.
    Suite,
    /// A key, integrity key or salt has another length than the algorithm takes.
    Length {
        /// The algorithm's word.
        word: &'static str,
        /// `key` or `salt`.
        what: &'static str,
        /// The length that it takes, in bytes.
        takes: usize,
        /// The length that was given, in bytes.
        given: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word => formatter.write_str("no such algorithm"),
            Self::Suite => formatter.write_str("these algorithms do not go together"),
            Self::Length { word, what, takes, given } => {
                write!(formatter, "{word} takes a {what} of {takes} bytes, not {given}")
            }
        }
    }
}

impl std::error::Error for Error {}
