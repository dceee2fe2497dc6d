//! The engine on its descriptors: TUNs, UDP port 4500 and IP protocol 50, for IPv4 and IPv6.
//!
//! A run of equal packets leaves with one send (`UDP_SEGMENT`: the kernel cuts it into datagrams) and arrives with
//! one receive (`UDP_GRO`: the kernel joined datagrams of one flow). Where the kernel or the route cannot do this,
//! packets go one by one, as raw ESP does: many with one call (`sendmmsg`, `recvmmsg`).
//!
//! System calls are made without the lock of what the packets go through, so that one thread may serve the TUNs
//! and another one the sockets: `Gateway::serve_tun` and `serve_socket` may run at the same time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::inbound::{Datagram, Incoming, KEEPALIVE};
use crate::interface::{Endpoint, Notice, TunnelId, Unreachable};
use crate::outbound::{Outgoing, Train};
use crate::sys::{self, Large, Received, Sending};

/// Ours: receives at one wake-up, and the bytes that end it: the other descriptors shall have their turn.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 512 * 1024;
/// Ours: reads of a TUN at one wake-up, and the bytes that end it; of large reads, two have as many packets as
/// two sends carry.
const READS: usize = 64;
const READ_BYTES: usize = 128 * 1024;

/// Ours: how long it goes on within one turn of the caller's loop.
const TURN: Duration = Duration::from_millis(1);

/// Segments and bytes of one send with `UDP_SEGMENT`: limits of the kernel and of a UDP datagram.
const MAXIMUM_SEGMENTS: usize = 64;
const MAXIMUM_TRAIN: usize = 65507;
/// Bytes of the largest read or receive.
const LARGEST: usize = 65600;

/// Bytes of socket buffer: a burst at 2 Gbit/s of 30 ms, as long as another process may hold the core.
const BUFFER: i32 = 8 << 20;

/// Ours: seconds between two packets with DF to one address; the least bytes of one; addresses remembered.
const PROBE_INTERVAL: f64 = 60.0;
const PROBED_LENGTH: usize = 1000;
const PROBED_PATHS: usize = 1024;

/// Every IPv6 path carries this (RFC 8200 section 5).
const LEAST_IPV6_MTU: usize = 1280;
const IPV6_AND_UDP: usize = 48;

/// The first bytes of an IKE message (RFC 3948 section 2.2).
const MARKER: [u8; 4] = [0; 4];

/// What can be set, and what the kernel is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether TUN descriptors have a `virtio_net_hdr`; None: the descriptor is asked.
    pub vnet_header: Option<bool>,
    /// The UDP port that ESP and IKE share; 0 for one that is free.
    pub port: u16,
    /// Whether sockets of IP protocol 50 are opened.
    pub raw: bool,
    /// The firewall mark of what is sent, 0 for none.
    pub mark: u32,
    /// Whether runs leave with one send.
    pub udp_segment: bool,
    /// Whether the kernel may join what arrives.
    pub udp_gro: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { vnet_header: None, port: 4500, raw: true, mark: 0, udp_segment: true, udp_gro: true }
    }
}

/// How many packets were not sent, and the error that says why.
#[derive(Clone, Copy, Default)]
struct Lost {
    packets: usize,
    why: Option<i32>,
}

impl Lost {
    fn count(&mut self, error: Option<i32>) {
        if error.is_some() {
            *self = Self { packets: self.packets + 1, why: error };
        }
    }
}

/// What changes while a socket sends.
struct State {
    segments: bool,
    /// A send was told of an error, of which the queue says more and keeps the descriptor readable.
    told: bool,
}

/// One socket that carries ESP.
///
/// What the kernel takes from ICMP errors has no say in how large packets are; the engine reads them itself. IPv4
/// goes without DF, so that routers fragment it; one packet a minute asks for the report of a smaller path. IPv6
/// routers do not fragment: what is too long for the path goes in fragments from here.
pub struct EspSocket {
    fd: OwnedFd,
    address: IpAddr,
    port: u16,
    usual: i32,
    state: Mutex<State>,
}

impl EspSocket {
    fn open(address: IpAddr, raw: bool, options: &Options) -> io::Result<Self> {
        let six = address.is_ipv6();
        let fd = sys::open_socket(six, raw)?;
        for (force, plain) in [(sys::SO_RCVBUFFORCE, sys::SO_RCVBUF), (sys::SO_SNDBUFFORCE, sys::SO_SNDBUF)] {
            sys::set_option(&fd, sys::SOL_SOCKET, force, BUFFER)
                .or_else(|_| sys::set_option(&fd, sys::SOL_SOCKET, plain, BUFFER))?;
        }
        if options.mark != 0 {
            sys::set_option(&fd, sys::SOL_SOCKET, sys::SO_MARK, options.mark.cast_signed())?;
        }
        // For IPv6 UDP the kernel passes on no report with OMIT.
        let usual = if six { sys::IP_PMTUDISC_PROBE } else { sys::IP_PMTUDISC_OMIT };
        discover(&fd, six, usual);
        let (level, errors, class) = if six {
            (sys::IPPROTO_IPV6, sys::IPV6_RECVERR, sys::IPV6_RECVTCLASS)
        } else {
            (sys::IPPROTO_IP, sys::IP_RECVERR, sys::IP_RECVTOS)
        };
        sys::set_option(&fd, level, errors, 1)?;
        sys::set_option(&fd, level, class, 1)?;
        if six && !raw {
            sys::set_option(&fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY, 1)?;
        }
        if options.udp_gro && !raw {
            // A kernel that does not know it hands over one by one.
            let _ = sys::set_option(&fd, sys::SOL_UDP, sys::UDP_GRO, 1);
        }
        sys::bind(&fd, Endpoint { address, port: if raw { 0 } else { options.port } })?;
        let port = if raw { 0 } else { sys::port_of(&fd)? };
        // Setting the option to 0 changes nothing and fails where the kernel does not know it.
        let segments =
            !raw && options.udp_segment && sys::set_option(&fd, sys::SOL_UDP, sys::UDP_SEGMENT, 0).is_ok();
        Ok(Self { fd, address, port, usual, state: Mutex::new(State { segments, told: false }) })
    }

    /// The descriptor, to wait for.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    const fn end(&self) -> Endpoint {
        Endpoint { address: self.address, port: self.port }
    }

    const fn is_raw(&self) -> bool {
        self.port == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Send once; the error, if it did not go.
    ///
    /// An ICMP error about an earlier datagram is reported by whatever call comes next, which then did nothing; it
    /// is tried again.
    fn send(&self, state: &mut State, pieces: [&[u8]; 2], how: Sending) -> Option<i32> {
        let mut error = self.attempt(pieces, how);
        if error.is_some_and(is_reported_late) {
            state.told = true;
            error = self.attempt(pieces, how);
        }
        if error == Some(sys::EMSGSIZE) && self.address.is_ipv6() {
            // The interface does not carry it; the report, of which there is one, says what it does.
            error = self.in_fragments(pieces, how);
        }
        error
    }

    fn attempt(&self, pieces: [&[u8]; 2], how: Sending) -> Option<i32> {
        let to = self.reachable(how.to);
        sys::send(&self.fd, pieces, Sending { to, ..how }).err().map(|error| number(&error))
    }

    /// Where the kernel takes it to: a raw IPv6 socket takes a port for its protocol, and refuses another one (ipv6(7)).
    const fn reachable(&self, to: Endpoint) -> Endpoint {
        Endpoint { port: if self.is_raw() { 0 } else { to.port }, ..to }
    }

    /// Send an IPv6 packet in fragments that the path carries.
    fn in_fragments(&self, pieces: [&[u8]; 2], how: Sending) -> Option<i32> {
        discover(&self.fd, true, sys::IP_PMTUDISC_DONT);
        let error = self.attempt(pieces, how);
        discover(&self.fd, true, self.usual);
        error
    }

    /// Send one packet that no router may fragment.
    fn with_df(&self, packet: &[u8], how: Sending) -> Option<i32> {
        let mut state = self.state();
        discover(&self.fd, self.address.is_ipv6(), sys::IP_PMTUDISC_PROBE);
        let error = self.send(&mut state, [packet, &[]], how);
        discover(&self.fd, self.address.is_ipv6(), self.usual);
        error
    }

    /// Send packets of `length` bytes, but perhaps a shorter last one.
    fn send_run(&self, packets: &[u8], length: usize, how: Sending) -> Lost {
        let mut state = self.state();
        let mut lost = Lost::default();
        let most = MAXIMUM_SEGMENTS.min(MAXIMUM_TRAIN / length).max(1);
        for chunk in packets.chunks(most * length) {
            let segment = u16::try_from(length).ok().filter(|_| state.segments && chunk.len() > length);
            if segment.is_some() {
                let error = self.send(&mut state, [chunk, &[]], Sending { segment, ..how });
                let Some(error) = error else { continue };
                if !is_segmentation_refused(error) {
                    lost.packets += chunk.len().div_ceil(length);
                    lost.why = Some(error);
                    continue;
                }
                // EIO: the route's device cannot checksum, now or later. The others concern this length.
                state.segments = error != sys::EIO;
                lost.why = Some(sys::EMSGSIZE);
            }
            self.send_each(&mut state, chunk, length, how, &mut lost);
        }
        lost
    }

    /// Send packets one by one, as many as may be with one call.
    fn send_each(&self, state: &mut State, packets: &[u8], length: usize, how: Sending, lost: &mut Lost) {
        let mut rest = packets;
        while !rest.is_empty() {
            let to = self.reachable(how.to);
            let left = if rest.len() > length {
                sys::send_many(&self.fd, rest, length, Sending { to, ..how }).unwrap_or_default()
            } else {
                0
            };
            rest = &rest[rest.len().min(left * length)..];
            // Of the one that did not leave, all that there is to find out and to try; a run that is whole has none.
            if left < sys::MOST_AT_ONCE && !rest.is_empty() {
                let packet = &rest[..rest.len().min(length)];
                lost.count(self.send(state, [packet, &[]], how));
                rest = &rest[packet.len()..];
            }
        }
    }

    /// Send IPv6 packets that are too long for the path, one by one.
    fn send_in_fragments(&self, packets: &[u8], length: usize, how: Sending) -> Lost {
        let _state = self.state();
        let mut lost = Lost::default();
        for packet in packets.chunks(length) {
            lost.count(self.in_fragments([packet, &[]], how));
        }
        lost
    }

    /// Send one datagram; the error, if it did not go, which is the peer's silence to its sender.
    fn send_one(&self, pieces: [&[u8]; 2], to: Endpoint) -> Option<i32> {
        let how = Sending { to, traffic_class: 0, segment: None };
        let mut state = self.state();
        if self.address.is_ipv6() && pieces[0].len() + pieces[1].len() > LEAST_IPV6_MTU - IPV6_AND_UDP {
            // A message of IKE must arrive, whatever is known of the path.
            self.in_fragments(pieces, how)
        } else {
            self.send(&mut state, pieces, how)
        }
    }
}

fn discover(fd: &OwnedFd, six: bool, value: i32) {
    let (level, option) = if six {
        (sys::IPPROTO_IPV6, sys::IPV6_MTU_DISCOVER)
    } else {
        (sys::IPPROTO_IP, sys::IP_MTU_DISCOVER)
    };
    // The kernel knows these values since before it knew the other options that are used here.
    let _ = sys::set_option(fd, level, option, value);
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(sys::EIO)
}

const fn is_reported_late(error: i32) -> bool {
    matches!(
        error,
        sys::ECONNREFUSED
            | sys::EHOSTUNREACH
            | sys::ENETUNREACH
            | sys::EPROTO
            | sys::EOPNOTSUPP
            | sys::EHOSTDOWN
            | sys::EMSGSIZE
    )
}

const fn is_segmentation_refused(error: i32) -> bool {
    matches!(error, sys::EIO | sys::EINVAL | sys::EMSGSIZE | sys::ENOPROTOOPT | sys::ENOTSUP)
}

/// What a lock protects is whole after a panic too: each call leaves it so, or is refused again.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ------------------------------------------------------------------------------------ gateway

/// What the packets of both directions go through, and what there is to say of them.
#[derive(Default)]
pub struct Core {
    /// The engine.
    pub engine: Engine,
    ike: VecDeque<Arrived>,
    probe_at: HashMap<IpAddr, f64>,
}

/// An IKE message: our end, the peer's, and its bytes.
pub type Arrived = (Endpoint, Endpoint, Box<[u8]>);

impl Core {
    /// The first IKE message that nobody has taken.
    pub fn take_ike(&mut self) -> Option<Arrived> {
        self.ike.pop_front()
    }

    /// Whether anything is to be told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.ike.is_empty() || self.engine.has_notices()
    }

    /// Whether the next large packet to an address should ask whether the path carries it.
    ///
    /// With DF on every packet, paths whose ICMP is filtered would lose all that is large; without any, a smaller
    /// path would make routers fragment without end. So one packet a minute risks being lost.
    fn is_probe_due(&mut self, now: f64, remote: IpAddr) -> bool {
        if self.probe_at.get(&remote).is_some_and(|at| now < *at) {
            return false;
        }
        if self.probe_at.len() >= PROBED_PATHS {
            self.probe_at.clear();
        }
        self.probe_at.insert(remote, now + PROBE_INTERVAL);
        true
    }
}

/// Memory for the packets of one direction, used again for each batch.
pub struct Buffers {
    /// Where the reads of a batch lie one after the other, or one receive.
    read: Box<[u8]>,
    ends: Vec<usize>,
    /// Where the datagrams of one receive of a raw socket lie, in pieces as large as the largest; there from the
    /// first one on.
    raw: Box<[u8]>,
    received: Vec<Received>,
    out: Outgoing,
    incoming: Incoming,
    /// The TUN that was read last.
    tun: Option<TunnelId>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            read: vec![0; READ_BYTES + LARGEST].into(),
            ends: Vec::new(),
            raw: Box::default(),
            received: Vec::new(),
            out: Outgoing::default(),
            incoming: Incoming::default(),
            tun: None,
        }
    }
}

#[derive(Default)]
struct Sockets {
    udp: [Option<Arc<EspSocket>>; 2],
    raw: [Option<Arc<EspSocket>>; 2],
}

impl Sockets {
    fn of(&self, udp: bool, six: bool) -> Option<&Arc<EspSocket>> {
        (if udp { &self.udp } else { &self.raw })[usize::from(six)].as_ref()
    }
}

/// A TUN: the caller's descriptor, and whether it has a `virtio_net_hdr`.
#[derive(Clone, Copy)]
struct Tun {
    fd: RawFd,
    vnet_header: bool,
    lost: bool,
}

/// What became of a TUN that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Nothing more was there, or enough was read for now.
    Done,
    /// The interface was deleted: its descriptor is of no use any more.
    Lost,
}

/// The engine with its descriptors.
pub struct Gateway {
    options: Options,
    clock: Clock,
    core: Mutex<Core>,
    sockets: Mutex<Sockets>,
    tuns: Mutex<HashMap<TunnelId, Tun>>,
    /// Read while a TUN's descriptor is used: the caller closes it after `remove_tunnel`.
    in_use: RwLock<()>,
}

/// The monotonic time of the caller, who says once what it is.
struct Clock {
    began: Instant,
    at: f64,
}

impl Gateway {
    /// A gateway that listens nowhere yet. `now` is the time on the caller's monotonic clock, in seconds.
    #[must_use]
    pub fn new(options: Options, now: f64) -> Self {
        Self {
            options,
            clock: Clock { began: Instant::now(), at: now },
            core: Mutex::default(),
            sockets: Mutex::default(),
            tuns: Mutex::default(),
            in_use: RwLock::default(),
        }
    }

    /// The time on the caller's clock.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.clock.at + self.clock.began.elapsed().as_secs_f64()
    }

    /// What the packets go through; to be held shortly.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        locked(&self.core)
    }

    /// Receive on `address`, no longer on another one of its family: the sockets that were closed, and those that
    /// were opened.
    ///
    /// # Errors
    /// A socket cannot be opened; what was listened on is still there then.
    pub fn listen(&self, address: IpAddr) -> io::Result<[Vec<Arc<EspSocket>>; 2]> {
        let six = usize::from(address.is_ipv6());
        let mut sockets = locked(&self.sockets);
        if sockets.udp[six].as_ref().is_some_and(|udp| udp.address == address) {
            return Ok([Vec::new(), Vec::new()]);
        }
        let udp = EspSocket::open(address, false, &self.options)?;
        let raw = if self.options.raw { Some(EspSocket::open(address, true, &self.options)?) } else { None };
        let opened = [Some(Arc::new(udp)), raw.map(Arc::new)];
        let closed = [
            std::mem::replace(&mut sockets.udp[six], opened[0].clone()),
            std::mem::replace(&mut sockets.raw[six], opened[1].clone()),
        ];
        let own = sockets.udp.iter().flatten().map(|udp| udp.address).collect();
        drop(sockets);
        self.core().engine.set_own(own);
        Ok([closed.into_iter().flatten().collect(), opened.into_iter().flatten().collect()])
    }

    /// The UDP port of IPv4 or IPv6; None where it does not listen.
    #[must_use]
    pub fn port(&self, six: bool) -> Option<u16> {
        locked(&self.sockets).of(true, six).map(|udp| udp.port)
    }

    /// Begin to carry the packets of a TUN; false, and no change, if the tunnel is known.
    ///
    /// # Errors
    /// The descriptor is of no use.
    pub fn add_tunnel(&self, id: TunnelId, fd: RawFd) -> io::Result<bool> {
        sys::set_nonblocking(fd)?;
        let vnet_header = self.options.vnet_header.unwrap_or_else(|| sys::has_vnet_header(fd));
        // What is no TUN, as in tests, gives one packet a read, and so does a kernel that cannot do better.
        let large = if vnet_header { sys::ask_for_large_reads(fd).ok() } else { None };
        let mut core = self.core();
        if !core.engine.add_tunnel(id, vnet_header) {
            return Ok(false);
        }
        // A kernel that hands over large reads of UDP takes large writes as well.
        core.engine.join_udp(id, large == Some(Large::TcpAndUdp));
        drop(core);
        locked(&self.tuns).insert(id, Tun { fd, vnet_header, lost: false });
        Ok(true)
    }

    /// Stop carrying its packets and forget its SAs; the descriptor, which is the caller's to close.
    pub fn remove_tunnel(&self, id: TunnelId) -> Option<RawFd> {
        self.core().engine.remove_tunnel(id);
        let removed = locked(&self.tuns).remove(&id);
        // Another thread may be reading or writing it.
        drop(self.in_use.write());
        removed.map(|tun| tun.fd)
    }

    /// The TUNs that can be read.
    #[must_use]
    pub fn tuns(&self) -> Vec<(TunnelId, RawFd)> {
        let tuns = locked(&self.tuns);
        tuns.iter().filter(|(_, tun)| !tun.lost).map(|(id, tun)| (*id, tun.fd)).collect()
    }

    /// The sockets that packets come from.
    #[must_use]
    pub fn sockets(&self) -> Vec<Arc<EspSocket>> {
        let sockets = locked(&self.sockets);
        sockets.udp.iter().chain(&sockets.raw).flatten().cloned().collect()
    }

    /// Serve a TUN, and go on as long as it or a socket is ready, in one turn of the caller's loop.
    pub fn serve_tun_in_turn(&self, id: TunnelId, buffers: &mut Buffers) -> Served {
        let began = Instant::now();
        let served = self.serve_tun(id, buffers);
        if served == Served::Done {
            self.go_on(began, buffers);
        }
        served
    }

    /// Serve a socket, and go on as long as it, another one or the TUN that was read last is ready.
    pub fn serve_socket_in_turn(&self, socket: &EspSocket, buffers: &mut Buffers) {
        let began = Instant::now();
        self.serve_socket(socket, buffers);
        self.go_on(began, buffers);
    }

    /// Serve what is ready after a batch, such as this host's answer: what the caller's loop costs is shared by them.
    ///
    /// It has its turn when nothing is ready any more, when there is something to tell, and after `TURN`.
    fn go_on(&self, began: Instant, buffers: &mut Buffers) {
        let (sockets, mut ready) = (self.sockets(), Vec::new());
        while began.elapsed() < TURN && !self.core().has_news() {
            let tun = buffers.tun.and_then(|id| Some((id, self.descriptor(id)?)));
            let fds: Vec<_> =
                tun.iter().map(|(_, fd)| *fd).chain(sockets.iter().map(|one| one.fd())).collect();
            if sys::wait(&fds, &mut ready, Some(0)).is_err() || !ready.contains(&true) {
                return;
            }
            let (of_tun, of_sockets) = ready.split_at(usize::from(tun.is_some()));
            if let Some((id, _)) = tun.filter(|_| of_tun[0])
                && self.serve_tun(id, buffers) == Served::Lost
            {
                return;
            }
            for (socket, _) in sockets.iter().zip(of_sockets).filter(|(_, ready)| **ready) {
                self.serve_socket(socket, buffers);
            }
        }
    }

    /// The descriptor of a TUN that can be read.
    fn descriptor(&self, id: TunnelId) -> Option<RawFd> {
        locked(&self.tuns).get(&id).filter(|tun| !tun.lost).map(|tun| tun.fd)
    }

    /// Read a batch of packets from a TUN, seal and send them.
    pub fn serve_tun(&self, id: TunnelId, buffers: &mut Buffers) -> Served {
        let _in_use = self.in_use.read();
        let Some(tun) = locked(&self.tuns).get(&id).copied().filter(|tun| !tun.lost) else {
            return Served::Lost;
        };
        let mut served = Served::Done;
        buffers.ends.clear();
        let mut used = 0;
        while buffers.ends.len() < READS && used < READ_BYTES {
            match sys::read(tun.fd, &mut buffers.read[used..]) {
                Ok(length) => {
                    used += length;
                    buffers.ends.push(used);
                }
                Err(error) => {
                    // EIO: it is down.
                    if matches!(number(&error), sys::EBADFD | sys::EBADF | sys::ENODEV) {
                        served = Served::Lost;
                    }
                    break;
                }
            }
        }
        if served == Served::Lost {
            if let Some(tun) = locked(&self.tuns).get_mut(&id) {
                tun.lost = true;
            }
            self.core().engine.tell(Notice::TunLost { tunnel: id });
        }
        buffers.tun = Some(id);
        if buffers.ends.is_empty() {
            return served;
        }
        let now = self.now();
        let starts = std::iter::once(0).chain(buffers.ends.iter().copied());
        let reads = starts.zip(&buffers.ends).map(|(start, end)| &buffers.read[start..*end]);
        buffers.out.clear();
        if tun.vnet_header {
            self.core().engine.send_reads(now, id, reads, &mut buffers.out);
        } else {
            self.core().engine.send(now, id, reads, &mut buffers.out);
        }
        self.transmit(now, &buffers.out);
        self.write_answers(id, tun, &buffers.out);
        served
    }

    /// Send one inner packet now, before all that wait in the TUN.
    pub fn send_packet(&self, id: TunnelId, packet: &[u8], out: &mut Outgoing) {
        let now = self.now();
        out.clear();
        self.core().engine.send(now, id, [packet], out);
        self.deliver(now, id, out);
    }

    /// Send what a command released.
    pub fn deliver(&self, now: f64, id: TunnelId, out: &Outgoing) {
        self.transmit(now, out);
        let _in_use = self.in_use.read();
        let tun = locked(&self.tuns).get(&id).copied();
        if let Some(tun) = tun {
            self.write_answers(id, tun, out);
        }
    }

    fn write_answers(&self, id: TunnelId, tun: Tun, out: &Outgoing) {
        for answer in out.answers() {
            let headed = [&[0; crate::split::VNET_HEADER], answer].concat();
            let write = if tun.vnet_header { &*headed } else { answer };
            if sys::write(tun.fd, write).is_err() {
                self.core().engine.count_unsent(id, 1);
            }
        }
    }

    /// Receive a batch of datagrams, each perhaps of many ESP packets; open and deliver them.
    pub fn serve_socket(&self, socket: &EspSocket, buffers: &mut Buffers) {
        let now = self.now();
        buffers.incoming.clear();
        buffers.out.clear();
        if socket.is_raw() {
            self.receive_raw(now, socket, buffers);
        } else {
            self.receive_udp(now, socket, buffers);
        }
        let mut core = self.core();
        core.engine.flush(&mut buffers.incoming);
        let local = socket.end();
        let ike = buffers.incoming.ike().iter();
        core.ike.extend(ike.map(|(sender, message)| (local, *sender, message.clone())));
        drop(core);
        self.transmit(now, &buffers.out);
        self.write(&buffers.incoming);
    }

    /// Datagrams of IP protocol 50, many with one call, for the kernel joins none of them.
    fn receive_raw(&self, now: f64, socket: &EspSocket, buffers: &mut Buffers) {
        if buffers.raw.is_empty() {
            // The kernel gives pages to what is written to.
            buffers.raw = vec![0; sys::MOST_AT_ONCE * LARGEST].into();
        }
        buffers.received.clear();
        let got = sys::receive_many(&socket.fd, &mut buffers.raw, LARGEST, &mut buffers.received);
        if got.is_err_and(|error| number(&error) != sys::EAGAIN)
            || buffers.received.is_empty()
            || socket.state().told
        {
            self.drain_errors(now, socket);
        }
        let mut core = self.core();
        for (received, place) in buffers.received.iter().zip(buffers.raw.chunks_exact_mut(LARGEST)) {
            if let Some(datagram) = datagram_of(socket, place, received) {
                core.engine.receive_one(now, datagram, &mut buffers.out, &mut buffers.incoming);
            }
        }
    }

    /// Datagrams of UDP, each perhaps many that the kernel joined.
    fn receive_udp(&self, now: f64, socket: &EspSocket, buffers: &mut Buffers) {
        let (mut count, mut room) = (0, BATCH_BYTES);
        while count < BATCH && room > 0 {
            let received = match sys::receive(&socket.fd, &mut buffers.read, false) {
                Ok(received) => received,
                Err(error) => {
                    if number(&error) != sys::EAGAIN || count == 0 || socket.state().told {
                        self.drain_errors(now, socket);
                    }
                    break;
                }
            };
            count += 1;
            room = room.saturating_sub(received.length);
            let Some(datagram) = datagram_of(socket, &mut buffers.read, &received) else { continue };
            let mut core = self.core();
            core.engine.receive_one(now, datagram, &mut buffers.out, &mut buffers.incoming);
            if !buffers.incoming.ike().is_empty() {
                // What it says may concern the datagrams that follow.
                break;
            }
        }
    }

    /// Write what was received to the TUNs.
    pub fn write(&self, incoming: &Incoming) {
        let _in_use = self.in_use.read();
        let mut last: Option<(TunnelId, RawFd)> = None;
        for (id, packet) in incoming.writes() {
            if last.is_none_or(|(known, _)| known != id) {
                last = locked(&self.tuns).get(&id).map(|tun| (id, tun.fd));
            }
            if let Some((_, fd)) = last
                && sys::write(fd, packet).is_err()
            {
                self.core().engine.count_unsent(id, 1);
            }
        }
    }

    // -------------------------------------------------------------------------- sending

    /// Send trains along their SAs' paths.
    fn transmit(&self, now: f64, out: &Outgoing) {
        for train in out.trains() {
            let socket = locked(&self.sockets).of(train.udp, train.remote.address.is_ipv6()).cloned();
            let packets = out.packets_of(train);
            let lost = match &socket {
                Some(socket) => self.transmit_train(now, socket, train, packets),
                None => packets.len().div_ceil(train.length),
            };
            if lost > 0 {
                self.core().engine.count_unsent(train.tunnel, lost);
            }
        }
    }

    fn transmit_train(&self, now: f64, socket: &EspSocket, train: &Train, mut packets: &[u8]) -> usize {
        let (six, length) = (train.remote.address.is_ipv6(), train.length);
        let how = Sending { to: train.remote, traffic_class: train.traffic_class, segment: None };
        if length >= PROBED_LENGTH && !six && self.core().is_probe_due(now, train.remote.address) {
            let (first, rest) = packets.split_at(length.min(packets.len()));
            let why = socket.with_df(first, how);
            if why.is_none() {
                packets = rest;
            }
            self.learn(now, socket, train, why);
        }
        let lost = if six && length > train.room {
            socket.send_in_fragments(packets, length, how)
        } else {
            socket.send_run(packets, length, how)
        };
        self.learn(now, socket, train, lost.why);
        lost.packets
    }

    /// Take from a failed send what it says about the path.
    fn learn(&self, now: f64, socket: &EspSocket, train: &Train, why: Option<i32>) {
        let Some(why) = why else { return };
        self.drain_errors(now, socket);
        if why == sys::EMSGSIZE {
            // A train says only that something is too small; the next large packet asks what.
            self.core().probe_at.remove(&train.remote.address);
        }
    }

    /// Read the errors that arrived for what this socket sent (ip(7), `IP_RECVERR`).
    fn drain_errors(&self, now: f64, socket: &EspSocket) {
        socket.state().told = false;
        let mut quote = [0; 256];
        for _ in 0..MAXIMUM_SEGMENTS {
            let Ok(received) = sys::receive(&socket.fd, &mut quote, true) else { return };
            let Some(report) = received.report else { continue };
            if report.error == sys::EMSGSIZE && report.info != 0 {
                let quoted = quote[..received.length].first_chunk().map(|spi| u32::from_be_bytes(*spi));
                let about = if report.local { None } else { Some(quoted.unwrap_or_default()) };
                self.core().engine.believe(now, received.peer, report.info as usize, about);
            } else if !report.local && quote[..received.length].starts_with(&MARKER) {
                self.tell_unreached(received.peer, report.icmp);
            }
        }
    }

    /// Say that an IKE message has not arrived; of ESP, silence is found out another way.
    fn tell_unreached(&self, remote: Endpoint, (kind, code): (u8, u8)) {
        let is_ipv6 = remote.address.is_ipv6();
        let local = locked(&self.sockets).of(true, is_ipv6).map(|udp| udp.end());
        if let (Some(local), Some(reason)) = (local, Unreachable::of_icmp(is_ipv6, kind, code)) {
            self.core().engine.tell(Notice::IkeUnreached { local, remote, reason });
        }
    }

    /// Send one IKE message from the shared UDP socket, with the non-ESP marker. `local` is our end as the sender
    /// knows it.
    pub fn send_ike(&self, local: Endpoint, remote: Endpoint, message: &[u8]) {
        let Some(udp) = locked(&self.sockets).of(true, remote.address.is_ipv6()).cloned() else { return };
        if let Some(sys::EPERM | sys::EACCES) = udp.send_one([&MARKER, message], remote) {
            let reason = Unreachable::ForbiddenHere;
            self.core().engine.tell(Notice::IkeUnreached { local, remote, reason });
        }
    }

    /// Send the one-byte NAT-keepalive from the shared UDP socket.
    pub fn send_keepalive(&self, remote: Endpoint) {
        if let Some(udp) = locked(&self.sockets).of(true, remote.address.is_ipv6()).cloned() {
            udp.send_one([KEEPALIVE, &[]], remote);
        }
    }

    /// Every socket, which is forgotten; it closes when nobody serves it any more.
    pub fn close(&self) -> Vec<Arc<EspSocket>> {
        let sockets = std::mem::take(&mut *locked(&self.sockets));
        sockets.udp.into_iter().chain(sockets.raw).flatten().collect()
    }
}

/// The ESP packets of what was received; None for what is too short to be any.
fn datagram_of<'a>(socket: &EspSocket, buffer: &'a mut [u8], received: &Received) -> Option<Datagram<'a>> {
    let data = &mut buffer[..received.length];
    let (length, traffic_class) = (received.segment.unwrap_or(data.len()), received.traffic_class);
    let sender = received.peer;
    if !socket.is_raw() {
        return Some(Datagram { data, length, traffic_class, sender, port: socket.port });
    }
    let sender = Endpoint { port: 0, ..sender };
    if socket.address.is_ipv6() {
        return Some(Datagram { data, length, traffic_class, sender, port: 0 });
    }
    // IPv4 raw sockets give the IP header as well (raw(7)).
    let header = usize::from(data.first()? & 0x0F) * 4;
    let traffic_class = *data.get(1)?;
    let data = data.get_mut(header..)?;
    Some(Datagram { length: data.len(), data, traffic_class, sender, port: 0 })
}
