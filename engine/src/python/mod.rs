//! The Python module `vpnd_engine`.
//!
//! Until the engine itself is here, these are its parts, one class or function for each of `vpnd.datapath`, so
//! that the differential tests can put the same bytes through both.

#![expect(clippy::doc_markdown, reason = "these are docstrings of Python")]
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it has converted")]

mod engine;
mod esp;
mod gateway;
mod parts;

use pyo3::prelude::*;

/// The native datapath of vpnd.
#[pymodule(name = "vpnd_engine")]
mod module {
    /// The version of `vpnd.datapath.interface` that this engine is made for.
    #[pymodule_export]
    const INTERFACE: u32 = 2;

    #[pymodule_export]
    use super::engine::PyEngine;
    #[pymodule_export]
    use super::esp::{Opener, Sealer, inner_length};
    #[pymodule_export]
    use super::gateway::NativeEngine;
    #[pymodule_export]
    use super::parts::{
        PySelectorTable, ReplayWindow, adjust_checksum, apply_outer, checksum, clamp_mss, covers,
        echo_answer, fragment_ipv4, inner_mtu, may_be_syn, read_packet, split_read, too_big,
    };
}
