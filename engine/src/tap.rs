//! What a tunnel carries, for who captures it: packets as they are, a batch at a time.

use crate::interface::{Endpoint, TunnelId};

/// Ours: bytes that wait to be taken; beyond them nothing more is kept of a capture that cannot keep up.
const WAITING_BYTES: usize = 4 << 20;

/// On which side of the encryption packets were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IP packets that were read from the TUN, or came out of ESP; some may be dropped yet.
    Inner,
    /// ESP packets that are sent, or were received and are authentic, from their SPI on.
    Outer {
        /// The SA, by the SPI that it receives on.
        spi_in: u32,
        /// Our end of its path.
        local: Endpoint,
        /// The peer's end: where they go, or came from.
        remote: Endpoint,
        /// Whether they travel in UDP.
        udp: bool,
    },
}

/// Packets of one tunnel, one direction and one layer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose they are.
    pub tunnel: TunnelId,
    /// Whether they are on their way to the peer.
    pub outbound: bool,
    /// Where they were seen.
    pub layer: Layer,
    /// The packets.
    pub packets: Vec<Box<[u8]>>,
}

/// What was seen and nobody has taken.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    seen: Vec<Seen>,
    bytes: usize,
}

impl Taps {
    /// Keep copies of packets, if there are any.
    pub(crate) fn show<P: Into<Box<[u8]>>>(
        &mut self,
        tunnel: TunnelId,
        outbound: bool,
        layer: Layer,
        packets: impl IntoIterator<Item = P>,
    ) {
        if self.bytes >= WAITING_BYTES {
            return;
        }
        let packets: Vec<Box<[u8]>> = packets.into_iter().map(Into::into).collect();
        if packets.is_empty() {
            return;
        }
        self.bytes += packets.iter().map(|packet| packet.len()).sum::<usize>();
        self.seen.push(Seen { tunnel, outbound, layer, packets });
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// All that was seen, in order.
    pub(crate) fn take(&mut self) -> Vec<Seen> {
        self.bytes = 0;
        std::mem::take(&mut self.seen)
    }
}
