//! The engine without input and output, with the model's own objects as arguments.

use std::collections::HashMap;
use std::net::IpAddr;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use super::esp::raised;
use super::parts::selectors;
use crate::engine::Engine;
use crate::esp::{Keys, SEED_LENGTH, Suite};
use crate::inbound::{Datagram, Incoming};
use crate::interface::{Endpoint, Notice, PolicyRow, TunnelId};
use crate::outbound::Outgoing;
use crate::sad::{Child, Refused};
use crate::spd::Selector;

/// `vpnd.model.proposals.Suite`.
#[derive(FromPyObject)]
struct SuiteOf {
    encryption: String,
    integrity: Option<String>,
    icv_length: Option<usize>,
    esn: bool,
}

/// `vpnd.model.selectors.Selector`.
#[derive(FromPyObject)]
struct SelectorOf {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
    port_start: u16,
    port_end: u16,
}

/// `vpnd.model.secret.Secret`: its bytes, which are wiped when the call ends.
fn reveal(secret: &Bound<'_, PyAny>) -> PyResult<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(secret.call_method0("reveal")?.cast::<PyBytes>()?.as_bytes().to_vec()))
}

/// `vpnd.model.child.EspKeys`.
#[derive(FromPyObject)]
struct KeysOf {
    #[pyo3(from_py_with = reveal)]
    encryption: Zeroizing<Vec<u8>>,
    #[pyo3(from_py_with = reveal)]
    integrity: Zeroizing<Vec<u8>>,
    #[pyo3(from_py_with = reveal)]
    salt: Zeroizing<Vec<u8>>,
}

impl KeysOf {
    fn keys(&self) -> Keys<'_> {
        Keys { encryption: &self.encryption, integrity: &self.integrity, salt: &self.salt }
    }
}

/// `vpnd.model.child.Path`, as far as it says where packets go.
#[derive(FromPyObject)]
pub(super) struct PathOf {
    local: IpAddr,
    local_port: u16,
    remote: IpAddr,
    remote_port: u16,
}

impl PathOf {
    pub(super) fn local(&self) -> Endpoint {
        Endpoint { address: self.local, port: self.local_port }
    }

    pub(super) fn remote(&self, udp: bool) -> Endpoint {
        Endpoint { address: self.remote, port: if udp { self.remote_port } else { 0 } }
    }
}

/// `vpnd.model.child.ChildSa`.
#[derive(FromPyObject)]
pub(super) struct ChildOf {
    tunnel: String,
    mapping: u32,
    spi_in: u32,
    spi_out: u32,
    suite: SuiteOf,
    keys_in: KeysOf,
    keys_out: KeysOf,
    ts_local: Vec<SelectorOf>,
    ts_remote: Vec<SelectorOf>,
    path: PathOf,
    udp: bool,
    replay_window: usize,
}

/// `vpnd.datapath.interface.PolicyRow`.
#[derive(FromPyObject)]
pub(super) struct RowOf {
    mapping: u32,
    local: Vec<SelectorOf>,
    remote: Vec<SelectorOf>,
}

fn side(kept: Vec<SelectorOf>) -> PyResult<Box<[Selector]>> {
    selectors(kept.into_iter().map(|s| (s.start, s.end, s.protocol, s.port_start, s.port_end)).collect())
}

impl ChildOf {
    pub(super) fn tunnel(&self) -> &str {
        &self.tunnel
    }

    pub(super) const fn spi_in(&self) -> u32 {
        self.spi_in
    }
}

/// A tunnel's mappings.
pub(super) fn policy_rows(rows: Vec<RowOf>) -> PyResult<Box<[PolicyRow]>> {
    let rows = rows.into_iter().map(|row| {
        Ok(PolicyRow { mapping: row.mapping, local: side(row.local)?, remote: side(row.remote)? })
    });
    rows.collect()
}

/// Install an SA pair with its limits in bytes; what waited for it is in `out`.
#[expect(clippy::too_many_arguments, reason = "what the engine takes, and who takes it")]
pub(super) fn installed(
    engine: &mut Engine,
    now: f64,
    tunnel: TunnelId,
    child: ChildOf,
    limits: (Option<u64>, Option<u64>),
    seed: &[u8; SEED_LENGTH],
    outbound: bool,
    out: &mut Outgoing,
) -> PyResult<()> {
    let words = &child.suite;
    let suite = Suite::of_words(&words.encryption, words.integrity.as_deref(), words.icv_length, words.esn);
    let wanted = Child {
        tunnel,
        mapping: child.mapping,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        suite: suite.map_err(raised)?,
        ts_local: side(child.ts_local)?,
        ts_remote: side(child.ts_remote)?,
        local: child.path.local(),
        remote: child.path.remote(child.udp),
        udp: child.udp,
        soft_bytes: limits.0,
        hard_bytes: limits.1,
        replay_window: child.replay_window,
    };
    let keys = [child.keys_in.keys(), child.keys_out.keys()];
    engine.install(now, wanted, keys, seed, outbound, out).map_err(|refused| match refused {
        Refused::Keys(error) => raised(error),
        Refused::Known => {
            PyValueError::new_err(format!("an SA with inbound SPI {:08x} is installed", child.spi_in))
        }
        Refused::Window => PyValueError::new_err("no size of a replay window"),
        Refused::Tunnel => PyKeyError::new_err("no such tunnel"),
    })
}

/// SPI that is received on, peer's address and port, whether in UDP, the packets, DSCP and ECN.
type Train<'py> = (u32, IpAddr, u16, bool, Vec<Bound<'py, PyBytes>>, u8);
/// Trains to send, and packets for the TUN.
type Sent<'py> = (Vec<Train<'py>>, Vec<Bound<'py, PyBytes>>);

/// What the kernel joined, bytes of each but the last, DSCP and ECN, sender's address and port.
type Arrived<'py> = (Bound<'py, PyBytes>, usize, u8, IpAddr, u16);
/// Whose TUN, and what is written to it.
type Written<'py> = (Option<String>, Bound<'py, PyBytes>);
/// Sender's address and port, and an IKE message.
type Ike<'py> = (IpAddr, u16, Bound<'py, PyBytes>);
/// Packets for TUNs, IKE messages, and what is to be sent.
type Received<'py> = (Vec<Written<'py>>, Vec<Ike<'py>>, Sent<'py>);

/// Tunnels and SAs in, packets through, notices and counters out.
#[pyclass(name = "Engine", module = "vpnd_engine")]
#[derive(Default)]
pub struct PyEngine {
    engine: Engine,
    out: Outgoing,
    incoming: Incoming,
    ids: HashMap<String, TunnelId>,
    names: HashMap<TunnelId, String>,
    next: TunnelId,
}

impl PyEngine {
    fn id(&self, tunnel: &str) -> PyResult<TunnelId> {
        self.ids.get(tunnel).copied().ok_or_else(|| PyKeyError::new_err(tunnel.to_owned()))
    }

    /// What a call gave, in Python's objects.
    fn taken<'py>(&self, py: Python<'py>) -> Sent<'py> {
        let trains = self.out.trains().iter().map(|train| {
            let packets = self.out.packets_of(train).chunks(train.length);
            let packets = packets.map(|packet| PyBytes::new(py, packet)).collect();
            let remote = train.remote;
            (train.spi_in, remote.address, remote.port, train.udp, packets, train.traffic_class)
        });
        (trains.collect(), self.out.answers().map(|answer| PyBytes::new(py, answer)).collect())
    }

    /// What was received, and what a call gave besides.
    fn received<'py>(&self, py: Python<'py>) -> Received<'py> {
        let writes = self.incoming.writes();
        let writes = writes.map(|(id, write)| (self.names.get(&id).cloned(), PyBytes::new(py, write)));
        let ike = self.incoming.ike().iter();
        let ike = ike.map(|(sender, message)| (sender.address, sender.port, PyBytes::new(py, message)));
        (writes.collect(), ike.collect(), self.taken(py))
    }
}

#[pymethods]
impl PyEngine {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Begin to carry a tunnel's packets. Raises ValueError if it is known.
    fn add_tunnel(&mut self, tunnel: String, vnet_header: bool) -> PyResult<()> {
        if self.ids.contains_key(&tunnel) {
            return Err(PyValueError::new_err(format!("tunnel '{tunnel}' is known")));
        }
        self.engine.add_tunnel(self.next, vnet_header);
        self.names.insert(self.next, tunnel.clone());
        self.ids.insert(tunnel, self.next);
        self.next += 1;
        Ok(())
    }

    /// Whether the kernel takes joined UDP datagrams from this tunnel.
    fn join_udp(&mut self, tunnel: &str, joins: bool) -> PyResult<()> {
        self.engine.join_udp(self.id(tunnel)?, joins);
        Ok(())
    }

    /// Stop carrying its packets and forget its SAs.
    fn remove_tunnel(&mut self, tunnel: &str) {
        if let Some(id) = self.ids.remove(tunnel) {
            self.names.remove(&id);
            self.engine.remove_tunnel(id);
        }
    }

    /// The path to this tunnel's peer now carries datagrams of `path_mtu` bytes.
    fn set_mtu(&mut self, tunnel: &str, path_mtu: usize) -> PyResult<()> {
        self.engine.set_mtu(self.id(tunnel)?, path_mtu);
        Ok(())
    }

    /// Inner packets have at most `mtu` bytes, TCP segments `mss`.
    fn set_limits(&mut self, tunnel: &str, mtu: Option<usize>, mss: Option<u16>) -> PyResult<()> {
        self.engine.set_limits(self.id(tunnel)?, mtu, mss);
        Ok(())
    }

    /// The mappings of a tunnel, all at once.
    fn replace_policies(&mut self, tunnel: &str, rows: Vec<RowOf>) -> PyResult<()> {
        self.engine.replace_policies(self.id(tunnel)?, policy_rows(rows)?);
        Ok(())
    }

    /// Drop business traffic, all but packets from or to `keep`; None ends that.
    fn interrupt(&mut self, tunnel: &str, keep: Option<Vec<IpAddr>>) -> PyResult<()> {
        self.engine.interrupt(self.id(tunnel)?, keep.as_deref());
        Ok(())
    }

    /// The addresses that it listens on.
    fn set_own(&mut self, own: Vec<IpAddr>) {
        self.engine.set_own(own.into());
    }

    /// Answer echo requests from `remote` to `local` at once.
    fn answer_probes(&mut self, tunnel: &str, local: IpAddr, remote: IpAddr) -> PyResult<()> {
        self.engine.answer_probes(self.id(tunnel)?, local, remote);
        Ok(())
    }

    /// Install an SA pair with its limits in bytes; what waited for it leaves, and what came early is received.
    fn install<'py>(
        &mut self,
        py: Python<'py>,
        now: f64,
        child: ChildOf,
        limits: (Option<u64>, Option<u64>),
        seed: [u8; SEED_LENGTH],
        outbound: bool,
    ) -> PyResult<Received<'py>> {
        let (id, spi_in) = (self.id(child.tunnel())?, child.spi_in());
        self.out.clear();
        self.incoming.clear();
        installed(&mut self.engine, now, id, child, limits, &seed, outbound, &mut self.out)?;
        self.engine.receive_early(now, spi_in, &mut self.out, &mut self.incoming);
        Ok(self.received(py))
    }

    /// Lower the limits of an SA pair, in bytes.
    fn limit(&mut self, spi_in: u32, soft: u64, hard: u64) {
        self.engine.limit(spi_in, soft, hard);
    }

    /// Send this mapping's packets on the SA pair with this inbound SPI; what waited leaves.
    fn use_outbound<'py>(&mut self, py: Python<'py>, now: f64, spi_in: u32) -> Sent<'py> {
        self.out.clear();
        self.engine.use_outbound(now, spi_in, &mut self.out);
        self.taken(py)
    }

    /// Forget an SA pair.
    fn remove(&mut self, spi_in: u32) {
        self.engine.remove(spi_in);
    }

    /// Send along another path.
    #[pyo3(name = "move")]
    fn move_to(&mut self, spi_in: u32, path: PathOf, udp: bool) {
        self.engine.move_to(spi_in, path.local(), path.remote(udp));
    }

    /// Seal a batch of packets.
    fn send<'py>(
        &mut self,
        py: Python<'py>,
        now: f64,
        tunnel: &str,
        packets: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Sent<'py>> {
        self.out.clear();
        let packets = packets.iter().map(PyBytesMethods::as_bytes);
        self.engine.send(now, self.id(tunnel)?, packets, &mut self.out);
        Ok(self.taken(py))
    }

    /// Seal what was read from a TUN with a `virtio_net_hdr`, each of which may stand for many packets.
    fn send_reads<'py>(
        &mut self,
        py: Python<'py>,
        now: f64,
        tunnel: &str,
        reads: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Sent<'py>> {
        self.out.clear();
        let reads = reads.iter().map(PyBytesMethods::as_bytes);
        self.engine.send_reads(now, self.id(tunnel)?, reads, &mut self.out);
        Ok(self.taken(py))
    }

    /// Open a batch of datagrams that came to a local UDP port; 0 for raw ESP.
    fn receive<'py>(
        &mut self,
        py: Python<'py>,
        now: f64,
        datagrams: Vec<Arrived<'py>>,
        port: u16,
    ) -> Received<'py> {
        self.out.clear();
        self.incoming.clear();
        let mut copies: Vec<_> = datagrams.iter().map(|arrived| arrived.0.as_bytes().to_vec()).collect();
        let taken = copies.iter_mut().zip(&datagrams).map(|(data, arrived)| Datagram {
            data,
            length: arrived.1,
            traffic_class: arrived.2,
            sender: Endpoint { address: arrived.3, port: arrived.4 },
            port,
        });
        self.engine.receive(now, taken, &mut self.out, &mut self.incoming);
        self.received(py)
    }

    /// An error says "too big" of what was sent to a peer, and quotes the packet; None: the kernel's own word.
    fn believe(&mut self, now: f64, remote: IpAddr, port: u16, mtu: usize, quote: Option<&[u8]>) {
        let spi = quote.map(|quote| quote.first_chunk().map_or(0, |spi| u32::from_be_bytes(*spi)));
        self.engine.believe(now, Endpoint { address: remote, port }, mtu, spi);
    }

    /// packets_in, packets_out, bytes_in, bytes_out, last_in, last_out; or None.
    fn stats(&self, spi_in: u32) -> Option<(u64, u64, u64, u64, f64, f64)> {
        let stats = self.engine.stats(spi_in)?;
        Some((
            stats.packets_in,
            stats.packets_out,
            stats.bytes_in,
            stats.bytes_out,
            stats.last_in,
            stats.last_out,
        ))
    }

    /// When packets of this tunnel left last, if any did since the last call.
    fn take_sent(&mut self, tunnel: &str) -> PyResult<Option<f64>> {
        Ok(self.engine.take_sent(self.id(tunnel)?))
    }

    /// When authentic packets of this tunnel came last, if any did since the last call.
    fn take_heard(&mut self, tunnel: &str) -> PyResult<Option<f64>> {
        Ok(self.engine.take_heard(self.id(tunnel)?))
    }

    /// The counters of a tunnel, or of everything that belongs to none, in the order of the reasons.
    #[pyo3(signature = (tunnel=None))]
    fn drops(&self, tunnel: Option<&str>) -> PyResult<Vec<u64>> {
        let Some(tunnel) = tunnel else { return Ok(self.engine.stray_drops().counts().to_vec()) };
        Ok(self.engine.drops(self.id(tunnel)?).map_or_else(Vec::new, |drops| drops.counts().to_vec()))
    }

    /// What there is to say, each as its name and its fields.
    fn take_notices<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let names = &self.names;
        let name = |tunnel| names.get(&tunnel).cloned();
        self.engine
            .take_notices()
            .map(|notice| match notice {
                Notice::Acquire { tunnel, mapping, source, destination, protocol } => {
                    ("Acquire", name(tunnel), mapping, source, destination, protocol).into_bound_py_any(py)
                }
                Notice::SoftLimit { tunnel, spi_in } => {
                    ("SoftLimit", name(tunnel), spi_in).into_bound_py_any(py)
                }
                Notice::HardLimit { tunnel, spi_in } => {
                    ("HardLimit", name(tunnel), spi_in).into_bound_py_any(py)
                }
                Notice::UnknownSpi { spi, source } => ("UnknownSpi", spi, source).into_bound_py_any(py),
                Notice::PeerSends { tunnel, spi_in } => {
                    ("PeerSends", name(tunnel), spi_in).into_bound_py_any(py)
                }
                Notice::PathMtu { remote, mtu } => ("PathMtu", remote, mtu).into_bound_py_any(py),
                Notice::IkeUnreached { local, remote, reason } => {
                    let path = (local.address, local.port, remote.address, remote.port);
                    ("IkeUnreached", path, format!("{reason:?}")).into_bound_py_any(py)
                }
                Notice::TunLost { tunnel } => ("TunLost", name(tunnel)).into_bound_py_any(py),
                Notice::PeerMoved { tunnel, spi_in, local, remote } => {
                    let path = (local.address, local.port, remote.address, remote.port);
                    ("PeerMoved", name(tunnel), spi_in, path).into_bound_py_any(py)
                }
            })
            .collect()
    }
}
