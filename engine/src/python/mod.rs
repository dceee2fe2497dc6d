//! The Python module `vpnd_engine`.
//!
//! Until the engine itself is here, these are its parts, one class or function for each of `vpnd.datapath`, so
//! that the differential tests can put the same bytes through both.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it has converted")]

mod esp;

use pyo3::prelude::*;

/// The native datapath of vpnd.
#[pymodule(name = "vpnd_engine")]
mod module {
    #[pymodule_export]
    use super::esp::{Opener, Sealer, inner_length};
}
