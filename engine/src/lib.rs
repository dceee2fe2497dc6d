//! The native datapath of vpnd: what `vpnd.datapath` does in Python, in Rust.
//!
//! The core does no input or output and asks for no time: packets, the time and entropy are handed in, packets
//! and counters come out. The Python engine is the specification, down to drop reasons and counters, and
//! `tests/native` runs both on the same packets.

mod coalesce;
pub mod ecn;
pub mod engine;
pub mod esp;
pub mod fit;
pub mod icmp;
pub mod inbound;
pub mod interface;
pub mod io;
pub mod ip;
pub mod mtu;
pub mod outbound;
pub mod replay;
pub mod sad;
mod sha256;
pub mod spd;
pub mod split;
mod sys;
pub mod tap;
mod tunnel;
pub mod workers;

#[cfg(feature = "python")]
mod python;
