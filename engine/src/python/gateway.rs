//! `vpnd.datapath.interface.Engine` on descriptors: what `vpnd.datapath.engine.PythonEngine` is.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyKeyError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::engine::{ChildOf, PathOf, RowOf, installed, policy_rows};
use crate::esp::SEED_LENGTH;
use crate::inbound::Incoming;
use crate::interface::{Endpoint, Notice, TunnelId, Unreachable};
use crate::io::{Buffers, EspSocket, Gateway, Options, Served};
use crate::outbound::Outgoing;
use crate::tap::{Layer, Seen};
use crate::workers::Workers;

const KILOBYTE: u64 = 1024;

/// `vpnd.datapath.interface.SocketOptions`.
#[derive(FromPyObject)]
struct SocketsOf {
    mark: u32,
}

/// `vpnd.datapath.interface.Features`.
#[derive(FromPyObject)]
struct FeaturesOf {
    udp_segment: bool,
    udp_gro: bool,
}

/// `vpnd.datapath.interface.EngineOptions`.
#[derive(FromPyObject)]
struct OptionsOf {
    vnet_header: Option<bool>,
    port: u16,
    raw: bool,
    sockets: SocketsOf,
    features: FeaturesOf,
}

impl From<OptionsOf> for Options {
    fn from(given: OptionsOf) -> Self {
        Self {
            vnet_header: given.vnet_header,
            port: given.port,
            raw: given.raw,
            mark: given.sockets.mark,
            udp_segment: given.features.udp_segment,
            udp_gro: given.features.udp_gro,
        }
    }
}

fn os_error(error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// An `Engine` (see `vpnd.datapath.interface`) on an asyncio event loop, which must be the caller's.
///
/// Listens on `local_addresses`, at most one of each family. Raises OSError if a socket cannot be opened.
#[pyclass(module = "vpnd_engine")]
pub struct NativeEngine {
    gateway: Arc<Gateway>,
    event_loop: Py<PyAny>,
    on_ike: Py<PyAny>,
    on_notice: Py<PyAny>,
    entropy: Py<PyAny>,
    types: Types,
    ids: HashMap<String, TunnelId>,
    names: HashMap<TunnelId, String>,
    /// By inbound SPI: whose SA it is, and how long before a limit it is replaced (`model.policy.Margin`).
    margins: HashMap<u32, (TunnelId, Py<PyAny>)>,
    /// Who captures which tunnels (`vpnd.datapath.interface.Tap`).
    taps: HashMap<TunnelId, Py<PyAny>>,
    sockets: HashMap<i32, Arc<EspSocket>>,
    next: TunnelId,
    buffers: Buffers,
    released: Outgoing,
    /// None: the loop's thread serves everything.
    workers: Option<Workers>,
}

/// The classes of vpnd that are handed out.
struct Types {
    path: Py<PyAny>,
    unreachable: Py<PyAny>,
    interface: Py<PyModule>,
}

impl NativeEngine {
    fn id(&self, tunnel: &str) -> PyResult<TunnelId> {
        self.ids.get(tunnel).copied().ok_or_else(|| PyKeyError::new_err(tunnel.to_owned()))
    }

    fn path<'py>(&self, py: Python<'py>, local: Endpoint, remote: Endpoint) -> PyResult<Bound<'py, PyAny>> {
        let ends = (local.address, local.port, remote.address, remote.port);
        self.types.path.bind(py).call1(ends)
    }

    /// A notice as the interface has it; None for one about a tunnel that is gone.
    fn notice<'py>(&self, py: Python<'py>, notice: Notice) -> PyResult<Option<Bound<'py, PyAny>>> {
        let name = |id: TunnelId| self.names.get(&id).cloned();
        let class = |word| self.types.interface.bind(py).getattr(word);
        let of_sa = |word, tunnel, spi_in: u32| {
            name(tunnel).map(|name| class(word)?.call1((name, spi_in))).transpose()
        };
        match notice {
            Notice::Acquire { tunnel, mapping, source, destination, protocol } => name(tunnel)
                .map(|name| class("Acquire")?.call1((name, mapping, source, destination, protocol)))
                .transpose(),
            Notice::SoftLimit { tunnel, spi_in } => of_sa("SoftLimit", tunnel, spi_in),
            Notice::HardLimit { tunnel, spi_in } => of_sa("HardLimit", tunnel, spi_in),
            Notice::PeerSends { tunnel, spi_in } => of_sa("PeerSends", tunnel, spi_in),
            Notice::UnknownSpi { spi, source } => class("UnknownSpi")?.call1((spi, source)).map(Some),
            Notice::PeerMoved { tunnel, spi_in, local, remote } => name(tunnel)
                .map(|name| class("PeerMoved")?.call1((name, spi_in, self.path(py, local, remote)?)))
                .transpose(),
            Notice::PathMtu { remote, mtu } => class("PathMtu")?.call1((remote, mtu)).map(Some),
            Notice::IkeUnreached { local, remote, reason } => {
                let word = match reason {
                    Unreachable::Port => "PORT",
                    Unreachable::Host => "HOST",
                    Unreachable::Prohibited => "PROHIBITED",
                    Unreachable::ForbiddenHere => "FORBIDDEN_HERE",
                };
                let reason = self.types.unreachable.bind(py).getattr(word)?;
                class("IkeUnreached")?.call1((self.path(py, local, remote)?, reason)).map(Some)
            }
            Notice::TunLost { tunnel } => {
                name(tunnel).map(|name| class("TunLost")?.call1((name,))).transpose()
            }
        }
    }

    /// Let the loop serve a descriptor, or the threads: never both, or packets would overtake each other.
    fn add_reader(slf: &Bound<'_, Self>, fd: i32, method: &str, argument: Py<PyAny>) -> PyResult<()> {
        let py = slf.py();
        if let Some(workers) = &slf.borrow().workers {
            workers.changed();
            return Ok(());
        }
        let call = slf.getattr(method)?;
        slf.borrow().event_loop.bind(py).call_method1("add_reader", (fd, call, argument))?;
        Ok(())
    }

    fn remove_reader(&self, py: Python<'_>, fd: i32) -> PyResult<()> {
        if let Some(workers) = &self.workers {
            workers.changed();
            return Ok(());
        }
        self.event_loop.bind(py).call_method1("remove_reader", (fd,)).map(drop)
    }

    /// Let who captures a tunnel hear what it has carried.
    fn show(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.borrow().taps.is_empty() {
            return Ok(());
        }
        let seen = slf.borrow().gateway.core().engine.take_seen();
        for Seen { tunnel, outbound, layer, packets } in seen {
            let Some(tap) = slf.borrow().taps.get(&tunnel).map(|tap| tap.clone_ref(py)) else { continue };
            let packets: Vec<_> = packets.iter().map(|packet| PyBytes::new(py, packet)).collect();
            match layer {
                Layer::Inner => tap.call_method1(py, "inner", (outbound, packets))?,
                Layer::Outer { local, remote, udp, .. } => {
                    let path = slf.borrow().path(py, local, remote)?;
                    tap.call_method1(py, "outer", (outbound, path, udp, packets))?
                }
            };
        }
        Ok(())
    }

    /// Give out notices when the caller, who is in a call of ours, has returned.
    fn tell_later(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::show(slf)?;
        let gateway = Arc::clone(&slf.borrow().gateway);
        if gateway.core().has_news() {
            let tell = slf.getattr("_tell")?;
            slf.borrow().event_loop.bind(slf.py()).call_method1("call_soon", (tell,))?;
        }
        Ok(())
    }

    /// What `marked` has of each tunnel, by name.
    fn times<'py>(
        &self,
        py: Python<'py>,
        mut take: impl FnMut(TunnelId) -> Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let times = PyDict::new(py);
        for (name, id) in &self.ids {
            if let Some(time) = take(*id) {
                times.set_item(name, time)?;
            }
        }
        Ok(times)
    }
}

#[pymethods]
impl NativeEngine {
    #[classattr]
    #[expect(non_upper_case_globals, reason = "the interface names it so")]
    const name: &'static str = "native";

    /// Packets of TCP that a TUN may have in one burst: as many full ones as leave with one send.
    #[classattr]
    #[expect(non_upper_case_globals, reason = "the interface names it so")]
    const segments: u32 = 44;

    #[new]
    #[pyo3(signature = (event_loop, local_addresses, on_ike, on_notice, options=None, entropy=None, threads=false))]
    #[expect(clippy::too_many_arguments, reason = "as the Python engine, and one more")]
    fn new(
        py: Python<'_>,
        event_loop: Py<PyAny>,
        local_addresses: Vec<IpAddr>,
        on_ike: Py<PyAny>,
        on_notice: Py<PyAny>,
        options: Option<OptionsOf>,
        entropy: Option<Py<PyAny>>,
        threads: bool,
    ) -> PyResult<Py<Self>> {
        let entropy = match entropy {
            Some(entropy) => entropy,
            None => py.import("vpnd.crypto.entropy")?.getattr("OsEntropy")?.call0()?.unbind(),
        };
        let now = event_loop.bind(py).call_method0("time")?.extract()?;
        let options = options.map_or_else(Options::default, Into::into);
        let gateway = Arc::new(Gateway::new(options, now));
        let workers = threads.then(|| Workers::start(Arc::clone(&gateway))).transpose();
        let engine = Py::new(
            py,
            Self {
                gateway,
                workers: workers.map_err(|error| os_error(&error))?,
                event_loop,
                on_ike,
                on_notice,
                entropy,
                types: Types {
                    path: py.import("vpnd.model.child")?.getattr("Path")?.unbind(),
                    unreachable: py.import("vpnd.model.unreachable")?.getattr("Unreachable")?.unbind(),
                    interface: py.import("vpnd.datapath.interface")?.unbind(),
                },
                ids: HashMap::new(),
                names: HashMap::new(),
                margins: HashMap::new(),
                taps: HashMap::new(),
                sockets: HashMap::new(),
                next: 0,
                buffers: Buffers::default(),
                released: Outgoing::default(),
            },
        )?;
        let slf = engine.bind(py);
        let news = slf.borrow().workers.as_ref().map(Workers::news_fd);
        if let Some(news) = news {
            let call = slf.getattr("_hear")?;
            slf.borrow().event_loop.bind(py).call_method1("add_reader", (news, call))?;
        }
        for address in local_addresses {
            if let Err(error) = Self::listen(slf, address) {
                Self::close(slf)?;
                return Err(error);
            }
        }
        Ok(engine)
    }

    fn listen(slf: &Bound<'_, Self>, address: IpAddr) -> PyResult<()> {
        let gateway = Arc::clone(&slf.borrow().gateway);
        let [closed, opened] = gateway.listen(address).map_err(|error| os_error(&error))?;
        for socket in closed {
            slf.borrow().remove_reader(slf.py(), socket.fd())?;
            slf.borrow_mut().sockets.remove(&socket.fd());
        }
        for socket in opened {
            let fd = socket.fd();
            slf.borrow_mut().sockets.insert(fd, socket);
            Self::add_reader(slf, fd, "_serve_socket", fd.into_py_any(slf.py())?)?;
        }
        Ok(())
    }

    /// The UDP port that ESP and IKE share, for IPv4 or IPv6.
    fn port(&self, version: u8) -> PyResult<u16> {
        self.gateway.port(version == 6).ok_or_else(|| PyKeyError::new_err(version))
    }

    // ----------------------------------------------------------------------- tunnels

    #[expect(unused_variables, reason = "a read is as large as the TUN makes it")]
    fn add_tunnel(slf: &Bound<'_, Self>, tunnel: String, tun_fd: i32, mtu: usize) -> PyResult<()> {
        let id = {
            let mut this = slf.borrow_mut();
            if this.ids.contains_key(&tunnel) {
                return Err(PyValueError::new_err(format!("tunnel '{tunnel}' is known")));
            }
            let id = this.next;
            this.gateway.add_tunnel(id, tun_fd).map_err(|error| os_error(&error))?;
            this.next += 1;
            this.names.insert(id, tunnel.clone());
            this.ids.insert(tunnel, id);
            id
        };
        Self::add_reader(slf, tun_fd, "_serve_tun", (id, tun_fd).into_py_any(slf.py())?)
    }

    fn remove_tunnel(slf: &Bound<'_, Self>, tunnel: &str) -> PyResult<()> {
        let fd = {
            let mut this = slf.borrow_mut();
            let Some(id) = this.ids.remove(tunnel) else { return Ok(()) };
            this.names.remove(&id);
            this.margins.retain(|_, (tunnel, _)| *tunnel != id);
            this.taps.remove(&id);
            this.gateway.remove_tunnel(id)
        };
        fd.map_or(Ok(()), |fd| slf.borrow().remove_reader(slf.py(), fd))
    }

    fn set_mtu(&self, tunnel: &str, path_mtu: usize) -> PyResult<()> {
        self.gateway.core().engine.set_mtu(self.id(tunnel)?, path_mtu);
        Ok(())
    }

    fn set_limits(&self, tunnel: &str, mtu: Option<usize>, mss: Option<u16>) -> PyResult<()> {
        self.gateway.core().engine.set_limits(self.id(tunnel)?, mtu, mss);
        Ok(())
    }

    fn replace_policies(&self, tunnel: &str, rows: Vec<RowOf>) -> PyResult<()> {
        let rows = policy_rows(rows)?;
        self.gateway.core().engine.replace_policies(self.id(tunnel)?, rows);
        Ok(())
    }

    #[pyo3(signature = (tunnel, interrupted, keep=Vec::new()))]
    fn interrupt(&self, tunnel: &str, interrupted: bool, keep: Vec<IpAddr>) -> PyResult<()> {
        self.gateway.core().engine.interrupt(self.id(tunnel)?, interrupted.then_some(&*keep));
        Ok(())
    }

    fn send_packet(slf: &Bound<'_, Self>, tunnel: &str, packet: &[u8]) -> PyResult<()> {
        {
            let this = &mut *slf.borrow_mut();
            let id = this.id(tunnel)?;
            this.gateway.send_packet(id, packet, &mut this.released);
        }
        Self::tell_later(slf)
    }

    fn answer_probes(&self, tunnel: &str, local: IpAddr, remote: IpAddr) -> PyResult<()> {
        self.gateway.core().engine.answer_probes(self.id(tunnel)?, local, remote);
        Ok(())
    }

    // --------------------------------------------------------------------------- SAs

    #[pyo3(signature = (child, outbound=true))]
    fn install(slf: &Bound<'_, Self>, child: &Bound<'_, PyAny>, outbound: bool) -> PyResult<()> {
        let py = slf.py();
        {
            let this = &mut *slf.borrow_mut();
            let entropy = this.entropy.bind(py);
            let seed: [u8; SEED_LENGTH] = entropy.call_method1("bytes", (SEED_LENGTH,))?.extract()?;
            let limits = limits(child, entropy)?;
            let margin = child.getattr("lifetimes")?.getattr("margin")?.unbind();
            let given: ChildOf = child.extract()?;
            let id = this.id(given.tunnel())?;
            let (now, spi_in) = (this.gateway.now(), given.spi_in());
            let mut incoming = Incoming::default();
            this.released.clear();
            let mut core = this.gateway.core();
            installed(&mut core.engine, now, id, given, limits, &seed, outbound, &mut this.released)?;
            core.engine.receive_early(now, spi_in, &mut this.released, &mut incoming);
            drop(core);
            this.margins.insert(spi_in, (id, margin));
            this.gateway.deliver(now, id, &this.released);
            this.gateway.write(&incoming);
        }
        Self::tell_later(slf)
    }

    fn use_outbound(slf: &Bound<'_, Self>, spi_in: u32) -> PyResult<()> {
        {
            let this = &mut *slf.borrow_mut();
            let now = this.gateway.now();
            this.released.clear();
            let mut core = this.gateway.core();
            let id = core.engine.tunnel_of(spi_in);
            core.engine.use_outbound(now, spi_in, &mut this.released);
            drop(core);
            if let Some(id) = id {
                this.gateway.deliver(now, id, &this.released);
            }
        }
        Self::tell_later(slf)
    }

    fn limit(slf: &Bound<'_, Self>, spi_in: u32, kilobytes: u64) -> PyResult<()> {
        {
            let this = slf.borrow();
            let Some((_, margin)) = this.margins.get(&spi_in) else { return Ok(()) };
            let (soft, hard) = before(margin.bind(slf.py()), kilobytes, this.entropy.bind(slf.py()))?;
            this.gateway.core().engine.limit(spi_in, soft, hard);
        }
        Self::tell_later(slf)
    }

    fn remove(&mut self, spi_in: u32) {
        self.margins.remove(&spi_in);
        self.gateway.core().engine.remove(spi_in);
    }

    #[pyo3(name = "move")]
    fn move_to(&self, spi_in: u32, path: PathOf) {
        let mut core = self.gateway.core();
        if let Some(udp) = core.engine.is_udp(spi_in) {
            core.engine.move_to(spi_in, path.local(), path.remote(udp));
        }
    }

    /// Let `tap` hear what this tunnel carries from now on, or nobody. Unknown tunnels are ignored.
    #[pyo3(signature = (tunnel, tap))]
    fn tap(&mut self, tunnel: &str, tap: Option<Py<PyAny>>) {
        let Some(id) = self.ids.get(tunnel).copied() else { return };
        self.gateway.core().engine.tap(id, tap.is_some());
        match tap {
            Some(tap) => self.taps.insert(id, tap),
            None => self.taps.remove(&id),
        };
    }

    fn stats<'py>(&self, py: Python<'py>, spi_in: u32) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(stats) = self.gateway.core().engine.stats(spi_in) else { return Ok(None) };
        let counted = (
            stats.packets_in,
            stats.packets_out,
            stats.bytes_in,
            stats.bytes_out,
            stats.last_in,
            stats.last_out,
        );
        self.types.interface.bind(py).getattr("SaStats")?.call1(counted).map(Some)
    }

    fn take_heard<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut core = self.gateway.core();
        self.times(py, |id| core.engine.take_heard(id))
    }

    fn take_sent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut core = self.gateway.core();
        self.times(py, |id| core.engine.take_sent(id))
    }

    #[pyo3(signature = (tunnel=None))]
    fn drops<'py>(&self, py: Python<'py>, tunnel: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let counted = match tunnel {
            None => self.gateway.core().engine.stray_drops(),
            Some(tunnel) => self.gateway.core().engine.drops(self.id(tunnel)?).unwrap_or_default(),
        };
        let class = self.types.interface.bind(py).getattr("Drop")?;
        let drops = PyDict::new(py);
        for (reason, count) in counted.counts().iter().enumerate() {
            drops.set_item(class.call1((reason,))?, count)?;
        }
        Ok(drops)
    }

    fn send_ike(slf: &Bound<'_, Self>, path: PathOf, data: &[u8]) -> PyResult<()> {
        slf.borrow().gateway.send_ike(path.local(), path.remote(true), data);
        Self::tell_later(slf)
    }

    fn send_keepalive(&self, path: PathOf) {
        self.gateway.send_keepalive(path.remote(true));
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let tunnels: Vec<String> = slf.borrow().ids.keys().cloned().collect();
        for tunnel in tunnels {
            Self::remove_tunnel(slf, &tunnel)?;
        }
        let closed = slf.borrow().gateway.close();
        for socket in closed {
            slf.borrow().remove_reader(slf.py(), socket.fd())?;
        }
        slf.borrow_mut().sockets.clear();
        let workers = slf.borrow_mut().workers.take();
        if let Some(workers) = workers {
            slf.borrow().remove_reader(slf.py(), workers.news_fd())?;
            slf.py().detach(|| drop(workers));
        }
        Ok(())
    }

    // ----------------------------------------------------------------------- readers

    fn _serve_tun(slf: &Bound<'_, Self>, tun: (TunnelId, i32)) -> PyResult<()> {
        let served = {
            let this = &mut *slf.borrow_mut();
            let (gateway, buffers) = (&this.gateway, &mut this.buffers);
            slf.py().detach(|| gateway.serve_tun_in_turn(tun.0, buffers))
        };
        if served == Served::Lost {
            slf.borrow().remove_reader(slf.py(), tun.1)?;
        }
        Self::_tell(slf)
    }

    /// The threads have something to say.
    fn _hear(slf: &Bound<'_, Self>) -> PyResult<()> {
        if let Some(workers) = &slf.borrow().workers {
            workers.heard();
        }
        Self::_tell(slf)
    }

    fn _serve_socket(slf: &Bound<'_, Self>, fd: i32) -> PyResult<()> {
        {
            let this = &mut *slf.borrow_mut();
            let Some(socket) = this.sockets.get(&fd).cloned() else { return Ok(()) };
            let (gateway, buffers) = (&this.gateway, &mut this.buffers);
            slf.py().detach(|| gateway.serve_socket_in_turn(&socket, buffers));
        }
        Self::_tell(slf)
    }

    /// Give out IKE messages and notices. A callback may call the engine, which may add further ones.
    fn _tell(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        Self::show(slf)?;
        let gateway = Arc::clone(&slf.borrow().gateway);
        loop {
            let arrived = gateway.core().take_ike();
            if let Some((local, remote, message)) = arrived {
                let (call, path) = {
                    let this = slf.borrow();
                    (this.on_ike.clone_ref(py), this.path(py, local, remote)?)
                };
                call.call1(py, (path, PyBytes::new(py, &message)))?;
                continue;
            }
            let Some(notice) = gateway.core().engine.take_notice() else { return Ok(()) };
            let (call, notice) = {
                let this = slf.borrow();
                (this.on_notice.clone_ref(py), this.notice(py, notice)?)
            };
            if let Some(notice) = notice {
                call.call1(py, (notice,))?;
            }
        }
    }
}

/// The soft and the hard limit of an SA in bytes, from its lifetimes (`vpnd.model.policy`).
fn limits(child: &Bound<'_, PyAny>, entropy: &Bound<'_, PyAny>) -> PyResult<(Option<u64>, Option<u64>)> {
    let lifetimes = child.getattr("lifetimes")?;
    let Some(kilobytes) = lifetimes.getattr("kilobytes")?.extract::<Option<u64>>()? else {
        return Ok((None, None));
    };
    let (soft, hard) = before(&lifetimes.getattr("margin")?, kilobytes, entropy)?;
    Ok((Some(soft), Some(hard)))
}

/// So many bytes before the limit, and at the limit.
fn before(margin: &Bound<'_, PyAny>, kilobytes: u64, entropy: &Bound<'_, PyAny>) -> PyResult<(u64, u64)> {
    let hard = kilobytes * KILOBYTE;
    let chance = margin.py().import("vpnd.crypto.entropy")?.getattr("chance")?.call1((entropy,))?;
    let soft: f64 = margin.call_method1("soft", (hard, chance))?.extract()?;
    #[expect(clippy::cast_sign_loss, reason = "a share of a size")]
    let soft = soft as u64;
    Ok((soft, hard))
}
