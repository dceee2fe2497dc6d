//! `vpnd.datapath.esp`: transforms of one direction each.

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::esp::{self, Error, Keys, SEED_LENGTH, Suite};

/// An exception of the kind that the Python engine raises.
pub(super) fn raised(error: Error) -> PyErr {
    match error {
        Error::Word => PyKeyError::new_err(error.to_string()),
        Error::Suite | Error::Length { .. } => PyValueError::new_err(error.to_string()),
    }
}

/// Cipher, hash, ICV length where it is not the table's, extended sequence numbers; then the key, the integrity
/// key and the salt.
#[derive(FromPyObject)]
struct Material<'py>(
    String,
    Option<String>,
    Option<usize>,
    bool,
    (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>),
);

impl Material<'_> {
    fn suite(&self) -> PyResult<Suite> {
        Suite::of_words(&self.0, self.1.as_deref(), self.2, self.3).map_err(raised)
    }

    fn keys(&self) -> Keys<'_> {
        let (encryption, integrity, salt) = &self.4;
        Keys { encryption: encryption.as_bytes(), integrity: integrity.as_bytes(), salt: salt.as_bytes() }
    }
}

/// Seals runs of packets of one length.
#[pyclass(module = "vpnd_engine")]
pub struct Sealer(esp::Sealer);

#[pymethods]
impl Sealer {
    #[new]
    fn new(material: Material<'_>, spi: u32, seed: [u8; SEED_LENGTH]) -> PyResult<Self> {
        esp::Sealer::new(material.suite()?, material.keys(), spi, &seed).map(Self).map_err(raised)
    }

    /// Bytes of the ESP packet around an inner packet of `inner` bytes.
    fn sealed_length(&self, inner: usize) -> usize {
        self.0.suite().sealed_length(inner)
    }

    /// The ESP packets, one after the other.
    fn seal<'py>(
        &mut self,
        py: Python<'py>,
        packets: Vec<Bound<'py, PyBytes>>,
        sequence: u64,
        next_header: u8,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let inner = packets.first().map_or(0, |packet| packet.as_bytes().len());
        let suite = self.0.suite();
        let (length, prefix) = (suite.sealed_length(inner), suite.prefix());
        let mut run = vec![0; length * packets.len()];
        for (place, packet) in run.chunks_exact_mut(length).zip(&packets) {
            let packet = packet.as_bytes();
            if packet.len() != inner {
                return Err(PyValueError::new_err("all packets of a run have one length"));
            }
            place[prefix..prefix + inner].copy_from_slice(packet);
        }
        match self.0.seal(&mut run, inner, sequence, next_header) {
            Ok(()) => Ok(PyBytes::new(py, &run)),
            Err(esp::Unsealed) => Err(PyRuntimeError::new_err("the cipher refused the packet")),
        }
    }
}

/// Opens single packets.
#[pyclass(module = "vpnd_engine")]
pub struct Opener(esp::Opener);

#[pymethods]
impl Opener {
    #[new]
    fn new(material: Material<'_>) -> PyResult<Self> {
        esp::Opener::new(material.suite()?, material.keys()).map(Self).map_err(raised)
    }

    /// Bytes of the shortest ESP packet that can be one of this SA's.
    #[getter]
    fn minimum(&self) -> usize {
        self.0.suite().minimum()
    }

    /// The plaintext, trailer included; None if the ICV does not verify.
    fn open<'py>(&self, py: Python<'py>, packet: &[u8], sequence: u64) -> Option<Bound<'py, PyBytes>> {
        let mut packet = packet.to_vec();
        self.0.open(&mut packet, sequence).map(|plaintext| PyBytes::new(py, plaintext))
    }
}

/// The length of the IP packet at the front of an authenticated plaintext, or None.
#[pyfunction]
pub fn inner_length(plaintext: &[u8]) -> Option<usize> {
    esp::inner_length(plaintext)
}
