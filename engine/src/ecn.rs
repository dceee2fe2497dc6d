//! Explicit congestion notification out of a tunnel (RFC 6040); the inner DSCP stays (RFC 4301 section 5.1.2.1).
//!
//! Encapsulation copies the whole traffic class to the outer header: the ECN field as RFC 6040's normal mode has
//! it, the DSCP as RFC 4301 section 5.1.2 has it. What is left to decide is decapsulation.

use crate::ip::{DSCP_MASK, ECN_MASK, IPV4_HEADER, Malformed, set_traffic_class, traffic_class};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The packet must be dropped: its sender would not understand the congestion mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

/// The ECN field to forward for the inner and outer fields (RFC 6040 section 4.2).
///
/// # Errors
/// Not-ECT inside and CE outside.
pub const fn decapsulated(inner: u8, outer: u8) -> Result<u8, Congested> {
    match (inner & ECN_MASK, outer & ECN_MASK) {
        (NOT_ECT, CE) => Err(Congested),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (CE, _) | (_, CE) => Ok(CE),
        (ECT_0, ECT_1) => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

/// Give `packet` the ECN field that follows from the outer traffic class; whether it may go on.
///
/// # Errors
/// It is no IP packet.
pub fn apply_outer(packet: &mut [u8], outer: u8) -> Result<Result<(), Congested>, Malformed> {
    let inner = traffic_class(packet)?;
    if packet.len() < IPV4_HEADER {
        return Err(Malformed);
    }
    Ok(decapsulated(inner, outer).map(|field| {
        if field != inner & ECN_MASK {
            set_traffic_class(packet, inner & DSCP_MASK | field);
        }
    }))
}
