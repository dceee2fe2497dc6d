//! `vpnd.datapath.replay`, `ecn`, `fit`, `mtu`, `spd` and `vpnd.wire.ip`, `icmp`.

use std::net::IpAddr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::esp::Suite;
use crate::ip::{IpPacket, Malformed, Sum};
use crate::replay;
use crate::spd::{Flow, Row, Selector, SelectorTable, Verdict};
use crate::split;
use crate::{ecn, fit, icmp, ip, mtu};

fn malformed(_: Malformed) -> PyErr {
    PyValueError::new_err("malformed packet")
}

/// Which sequence numbers have arrived.
#[pyclass(module = "vpnd_engine")]
pub struct ReplayWindow(replay::ReplayWindow);

#[pymethods]
impl ReplayWindow {
    #[new]
    fn new(size: usize) -> PyResult<Self> {
        let window = replay::ReplayWindow::new(size);
        window.map(Self).ok_or_else(|| PyValueError::new_err("no size of a replay window"))
    }

    /// The highest number that was accepted.
    #[getter]
    fn highest(&self) -> u64 {
        self.0.highest()
    }

    /// Whether a number is new.
    fn check(&self, sequence: u64) -> bool {
        self.0.check(sequence)
    }

    /// Mark an authenticated packet's number as seen; False if it was not new.
    fn accept(&mut self, sequence: u64) -> bool {
        self.0.accept(sequence)
    }

    /// The 64-bit number of which a packet carries the low half.
    fn extend(&self, low: u32) -> u64 {
        self.0.extend(low)
    }
}

// ------------------------------------------------------------------------------- IP and ICMP

type Read =
    (IpAddr, IpAddr, u8, usize, usize, u8, bool, bool, usize, (Option<u16>, Option<u16>), Option<(u8, u8)>);

/// The fields of an IP packet, in the order of `vpnd.wire.ip.IpPacket` without the hop limit.
#[pyfunction]
pub fn read_packet(packet: &[u8]) -> PyResult<Read> {
    let read = IpPacket::read(packet).map_err(malformed)?;
    Ok((
        read.source,
        read.destination,
        read.protocol,
        read.header_length,
        read.total_length,
        read.traffic_class,
        read.dont_fragment,
        read.more_fragments,
        read.fragment_offset,
        (read.ports.map(|ports| ports.0), read.ports.map(|ports| ports.1)),
        read.icmp,
    ))
}

/// The internet checksum.
#[pyfunction]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::default().with(data).checksum()
}

/// The checksum after a 16-bit word of its data changed.
#[pyfunction]
pub fn adjust_checksum(old: u16, before: u16, after: u16) -> u16 {
    ip::adjust_checksum(old, before, after)
}

/// A packet with the ECN field that follows from the outer traffic class; None if it must be dropped.
#[pyfunction]
pub fn apply_outer<'py>(py: Python<'py>, packet: &[u8], outer: u8) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut changed = packet.to_vec();
    let applied = ecn::apply_outer(&mut changed, outer).map_err(malformed)?;
    Ok(applied.ok().map(|()| PyBytes::new(py, &changed)))
}

/// The answer to an echo request, or None.
#[pyfunction]
pub fn echo_answer<'py>(py: Python<'py>, packet: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut out = Vec::new();
    let made = icmp::append_echo_answer(&mut out, packet).map_err(malformed)?;
    Ok(made.then(|| PyBytes::new(py, &out)))
}

/// The ICMP error for a packet that is too big, or None.
#[pyfunction]
pub fn too_big<'py>(py: Python<'py>, packet: &[u8], mtu: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut out = Vec::new();
    let made = icmp::append_too_big(&mut out, packet, mtu).map_err(malformed)?;
    Ok(made.then(|| PyBytes::new(py, &out)))
}

// -------------------------------------------------------------------------------------- fit

/// Whether `clamp_mss` might change a packet.
#[pyfunction]
pub fn may_be_syn(packet: &[u8]) -> bool {
    fit::may_be_syn(packet)
}

/// A packet, with the MSS of a TCP SYN brought down.
#[pyfunction]
#[pyo3(signature = (packet, limit, most=None))]
pub fn clamp_mss<'py>(
    py: Python<'py>,
    packet: &[u8],
    limit: usize,
    most: Option<u16>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut changed = packet.to_vec();
    fit::clamp_mss(&mut changed, limit, most).map_err(malformed)?;
    Ok(PyBytes::new(py, &changed))
}

/// The fragments of an IPv4 packet.
#[pyfunction]
pub fn fragment_ipv4<'py>(
    py: Python<'py>,
    packet: &[u8],
    limit: usize,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let mut fragments = Vec::new();
    fit::fragment_ipv4(packet, limit, |header, data| {
        fragments.push(PyBytes::new(py, &[header, data].concat()));
    })
    .map_err(malformed)?;
    Ok(fragments)
}

/// The longest inner packet that a path carries.
#[pyfunction]
pub fn inner_mtu(
    path_mtu: usize,
    suite: (String, Option<String>, Option<usize>),
    udp: bool,
    version: u8,
) -> PyResult<usize> {
    let (encryption, integrity, icv) = suite;
    let suite = Suite::of_words(&encryption, integrity.as_deref(), icv, false).map_err(super::esp::raised)?;
    Ok(mtu::inner_mtu(mtu::believed(path_mtu, version == 6), suite, udp, version == 6))
}

/// The packets that one read of a TUN stands for, its `virtio_net_hdr` in front.
#[pyfunction]
pub fn split_read<'py>(py: Python<'py>, read: &[u8]) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let read = split::Read::new(read).map_err(malformed)?;
    let segment = |index| {
        let mut out = vec![0; read.length(index)];
        read.write(index, &mut out);
        PyBytes::new(py, &out)
    };
    Ok((0..read.count()).map(segment).collect())
}

// -------------------------------------------------------------------------------------- spd

/// First and last address, protocol, first and last port.
type Side = Vec<(IpAddr, IpAddr, u8, u16, u16)>;

pub(super) fn selectors(side: Side) -> PyResult<Box<[Selector]>> {
    side.into_iter()
        .map(|(start, end, protocol, first, last)| {
            Selector::new(start, end, protocol, (first, last))
                .ok_or_else(|| PyValueError::new_err("no selector"))
        })
        .collect()
}

/// Whether every packet of the second selector is one of the first's.
#[pyfunction]
pub fn covers(sides: Side) -> PyResult<bool> {
    match *selectors(sides)? {
        [first, second] => Ok(first.covers(&second)),
        _ => Err(PyValueError::new_err("two selectors are compared")),
    }
}

/// Rows in order of preference: mapping, sources, destinations.
#[pyclass(name = "SelectorTable", module = "vpnd_engine")]
pub struct PySelectorTable(SelectorTable);

#[pymethods]
impl PySelectorTable {
    #[new]
    fn new(rows: Vec<(u32, Side, Side)>, refuse_martians: bool, own: Vec<IpAddr>) -> PyResult<Self> {
        let rows = rows
            .into_iter()
            .map(|(mapping, sources, destinations)| {
                Ok(Row { mapping, sources: selectors(sources)?, destinations: selectors(destinations)? })
            })
            .collect::<PyResult<_>>()?;
        Ok(Self(if refuse_martians {
            SelectorTable::inbound(rows, own.into())
        } else {
            SelectorTable::outbound(rows)
        }))
    }

    /// Whether the answers depend on the addresses alone.
    #[getter]
    fn by_address(&self) -> bool {
        self.0.by_address()
    }

    /// From now on only packets from or to `keep` are of any mapping; None ends that.
    fn interrupt(&mut self, keep: Option<Vec<IpAddr>>) {
        self.0.interrupt(keep.map(Into::into));
    }

    /// From now on packets of this flow are the peer's probes.
    fn tell_probes(&mut self, source: IpAddr, destination: IpAddr) {
        self.0.tell_probes(Flow::between(source, destination));
    }

    /// The mapping of a packet as remembered or decided; -1 for none, -2 for a probe.
    fn lookup(&mut self, packet: &[u8]) -> PyResult<i64> {
        self.0.lookup(packet).map(number).map_err(malformed)
    }

    /// The same, decided by the rows.
    fn decide(&mut self, packet: &[u8]) -> PyResult<i64> {
        self.0.decide(packet).map(number).map_err(malformed)
    }
}

fn number(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Mapping(mapping) => mapping.into(),
        Verdict::Nothing => -1,
        Verdict::Probed => -2,
    }
}
