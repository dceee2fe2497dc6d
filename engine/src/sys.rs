//! The system calls that the standard library does not have, and instructions that not every processor has: all unsafe
//! code of the crate is here.
//!
//! Every function takes and gives safe types. Descriptors are plain numbers where they belong to the caller: a
//! wrong one is an error of the call, not of memory.

#![allow(unsafe_code, reason = "system calls and instructions, each with why it is right")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::interface::Endpoint;
use crate::sha256::{BLOCK, LANES, State};

pub(crate) use libc::{
    EACCES, EAGAIN, EBADF, EBADFD, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EINVAL, EIO, EMSGSIZE, ENETUNREACH,
    ENODEV, ENOPROTOOPT, ENOTSUP, EOPNOTSUPP, EPERM, EPROTO, IP_MTU_DISCOVER, IP_PMTUDISC_DONT,
    IP_PMTUDISC_OMIT, IP_PMTUDISC_PROBE, IP_RECVERR, IP_RECVTOS, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
    IPV6_RECVERR, IPV6_RECVTCLASS, IPV6_V6ONLY, SO_MARK, SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF,
    SO_SNDBUFFORCE, SOL_SOCKET, SOL_UDP, UDP_GRO, UDP_SEGMENT,
};

/// IP protocol 50.
const ESP_PROTOCOL: i32 = 50;

const TUNGETIFF: libc::Ioctl = 0x8004_54D2;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54D0;
const IFF_VNET_HDR: u16 = 0x4000;
/// Checksums, TSO of both families; USO of both, which Linux has since 6.2 (`linux/if_tun.h`).
const TUN_TSO: libc::c_ulong = 0x01 | 0x02 | 0x04;
const TUN_USO: libc::c_ulong = 0x20 | 0x40;

/// Room for the control messages of one call, where their headers are aligned.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// A socket address as the kernel takes it, and its length.
fn raw_address(to: Endpoint) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    let length = match to.address {
        IpAddr::V4(address) => {
            // SAFETY: all zeroes are a valid `sockaddr_in`.
            let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = to.port.to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            // SAFETY: `sockaddr_storage` has room and alignment for every address.
            unsafe { place.cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(address) => {
            // SAFETY: all zeroes are a valid `sockaddr_in6`.
            let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = to.port.to_be();
            raw.sin6_addr.s6_addr = address.octets();
            // SAFETY: as above.
            unsafe { place.cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// The address that the kernel gave; None for one of another family.
fn endpoint_of(storage: &libc::sockaddr_storage) -> Option<Endpoint> {
    let place = &raw const *storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a `sockaddr_in`, for which there is room.
            let raw = unsafe { place.cast::<libc::sockaddr_in>().read() };
            let address = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(Endpoint { address: address.into(), port: u16::from_be(raw.sin_port) })
        }
        libc::AF_INET6 => {
            // SAFETY: as above, of a `sockaddr_in6`.
            let raw = unsafe { place.cast::<libc::sockaddr_in6>().read() };
            let address = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(Endpoint { address: address.into(), port: u16::from_be(raw.sin6_port) })
        }
        _ => None,
    }
}

/// What a call of C gave: an error where it is negative.
fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A socket that does not block: of UDP, or of IP protocol 50.
pub(crate) fn open_socket(is_ipv6: bool, raw: bool) -> io::Result<OwnedFd> {
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let (kind, protocol) = if raw { (libc::SOCK_RAW, ESP_PROTOCOL) } else { (libc::SOCK_DGRAM, 0) };
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) };
    checked(fd as isize)?;
    // SAFETY: the kernel has just given this descriptor to us and nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Something that makes a descriptor readable, for waking a loop.
pub(crate) fn open_event() -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    checked(fd as isize)?;
    // SAFETY: as in `open_socket`.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bind(socket: &OwnedFd, to: Endpoint) -> io::Result<()> {
    let (storage, length) = raw_address(to);
    // SAFETY: `storage` is an address of `length` bytes.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const storage).cast(), length) };
    checked(result as isize).map(drop)
}

/// The port that it is bound to.
pub(crate) fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    // SAFETY: all zeroes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&storage) as libc::socklen_t;
    // SAFETY: `storage` has room for `length` bytes.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut storage).cast(), &raw mut length) };
    checked(result as isize)?;
    Ok(endpoint_of(&storage).map_or(0, |endpoint| endpoint.port))
}

pub(crate) fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is `length` bytes.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    checked(result as isize).map(drop)
}

/// How one datagram, or many of one length, leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) to: Endpoint,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// The length that the kernel cuts it to (`UDP_SEGMENT`).
    pub(crate) segment: Option<u16>,
}

/// Send pieces that follow each other as one datagram, or as many.
pub(crate) fn send(socket: &OwnedFd, pieces: [&[u8]; 2], how: Sending) -> io::Result<()> {
    let (mut storage, length) = raw_address(how.to);
    let mut vectors =
        pieces.map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
    let mut control = Control([0; 256]);
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut storage).cast();
    message.msg_namelen = length;
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = if pieces[1].is_empty() { 1 } else { 2 };
    let mut used = push_traffic_class(&mut control, how);
    if let Some(segment) = how.segment {
        used = push(&mut control, used, SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }
    if used > 0 {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = used as _;
    }
    // SAFETY: every pointer of `message` is to something alive that has the length beside it; the kernel only
    // reads from the vectors.
    checked(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) }).map(drop)
}

/// The most datagrams of one call.
pub(crate) const MOST_AT_ONCE: usize = 32;

/// Send packets of `length` bytes that follow each other, the last perhaps shorter, each as one datagram, with one
/// call. How many of them left, which are at most `MOST_AT_ONCE`; an error is of the first one.
pub(crate) fn send_many(socket: &OwnedFd, packets: &[u8], length: usize, how: Sending) -> io::Result<usize> {
    let (mut storage, name_length) = raw_address(how.to);
    let mut control = Control([0; 256]);
    let used = push_traffic_class(&mut control, how);
    // SAFETY: all zeroes are valid for both.
    let (mut vectors, mut headers): ([libc::iovec; MOST_AT_ONCE], [libc::mmsghdr; MOST_AT_ONCE]) =
        unsafe { std::mem::zeroed() };
    let mut count = 0;
    for ((packet, vector), header) in packets.chunks(length).zip(&mut vectors).zip(&mut headers) {
        *vector = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
        let message = &mut header.msg_hdr;
        message.msg_name = (&raw mut storage).cast();
        message.msg_namelen = name_length;
        message.msg_iov = &raw mut *vector;
        message.msg_iovlen = 1;
        if used > 0 {
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = used as _;
        }
        count += 1;
    }
    // SAFETY: the first `count` headers are filled in, and every pointer of theirs is to something alive that has
    // the length beside it; the kernel writes to nothing but `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    checked(sent as isize)
}

/// Append the traffic class that is wanted to an empty control buffer; where the next message begins.
fn push_traffic_class(control: &mut Control, how: Sending) -> usize {
    let (level, option) = match how.to.address {
        IpAddr::V4(_) => (IPPROTO_IP, libc::IP_TOS),
        IpAddr::V6(_) => (IPPROTO_IPV6, libc::IPV6_TCLASS),
    };
    if how.traffic_class == 0 {
        return 0;
    }
    push(control, 0, level, option, &i32::from(how.traffic_class).to_ne_bytes())
}

/// Append a control message at `at`; where the next one begins.
fn push(control: &mut Control, at: usize, level: i32, kind: i32, value: &[u8]) -> usize {
    let header = size_of::<libc::cmsghdr>();
    let length = header + value.len();
    let place = &mut control.0[at..at + length.next_multiple_of(8)];
    place[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
    place[header - 8..header - 4].copy_from_slice(&level.to_ne_bytes());
    place[header - 4..header].copy_from_slice(&kind.to_ne_bytes());
    place[header..length].copy_from_slice(value);
    at + place.len()
}

// The layout that `push` and `messages` rely on: a length as wide as a pointer, level, type.
const _: () = assert!(size_of::<libc::cmsghdr>() == size_of::<usize>() + 8 && align_of::<usize>() == 8);

/// The control messages of what was received: level, type, value.
fn messages(control: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    let header = size_of::<libc::cmsghdr>();
    let mut rest = control;
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(*rest.first_chunk()?);
        let message = rest.get(..length)?;
        let number = |at: usize| Some(i32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
        let found = (number(header - 8)?, number(header - 4)?, message.get(header..)?);
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
        Some(found)
    })
}

/// An error that the kernel has about something that was sent (ip(7), `IP_RECVERR`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) error: i32,
    /// The kernel itself says so of this machine's interface; all else came as ICMP and may be forged.
    pub(crate) local: bool,
    /// Type and code of the ICMP error.
    pub(crate) icmp: (u8, u8),
    pub(crate) info: u32,
}

/// What one receive gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    /// Bytes of each datagram that the kernel joined.
    pub(crate) segment: Option<usize>,
    pub(crate) traffic_class: u8,
    /// Where it came from, or, of an error, what it was sent to.
    pub(crate) peer: Endpoint,
    pub(crate) report: Option<Report>,
}

/// Receive one datagram, or many that the kernel joined; or, with `errors`, one report of the error queue.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8], errors: bool) -> io::Result<Received> {
    // SAFETY: all zeroes are valid for both.
    let (mut storage, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 256]);
    message.msg_name = (&raw mut storage).cast();
    message.msg_namelen = size_of_val(&storage) as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = if errors { libc::MSG_ERRQUEUE } else { 0 };
    // SAFETY: every pointer of `message` is to something alive and writable that has the length beside it.
    let length = checked(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })?;
    let used = message.msg_controllen.min(control.0.len());
    Ok(Received::of(length, &storage, &control.0[..used]))
}

impl Received {
    /// What the kernel says of `length` bytes that it wrote.
    fn of(length: usize, storage: &libc::sockaddr_storage, control: &[u8]) -> Self {
        let nobody = Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        let peer = endpoint_of(storage).unwrap_or(nobody);
        let mut received = Self { length, segment: None, traffic_class: 0, peer, report: None };
        for (level, kind, value) in messages(control) {
            match (level, kind) {
                (SOL_UDP, UDP_GRO) => {
                    let size = value.first_chunk().map_or(0, |size| i32::from_ne_bytes(*size));
                    received.segment = usize::try_from(size).ok().filter(|size| *size > 0);
                }
                (IPPROTO_IP, libc::IP_TOS) | (IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    received.traffic_class = value.first().copied().unwrap_or_default();
                }
                (IPPROTO_IP, IP_RECVERR) | (IPPROTO_IPV6, IPV6_RECVERR) => {
                    received.report = report_of(value);
                }
                _ => {}
            }
        }
        received
    }
}

/// Room for the control messages of one of many datagrams.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Small([u8; 64]);

/// Receive what has arrived, at most `MOST_AT_ONCE` datagrams, into pieces of `each` bytes of `buffer`; what is said
/// of each is appended to `received`.
pub(crate) fn receive_many(
    socket: &OwnedFd,
    buffer: &mut [u8],
    each: usize,
    received: &mut Vec<Received>,
) -> io::Result<()> {
    // SAFETY: all zeroes are valid for all three.
    let (mut names, mut vectors, mut headers): (
        [libc::sockaddr_storage; MOST_AT_ONCE],
        [libc::iovec; MOST_AT_ONCE],
        [libc::mmsghdr; MOST_AT_ONCE],
    ) = unsafe { std::mem::zeroed() };
    let mut controls = [Small([0; 64]); MOST_AT_ONCE];
    let mut count = 0;
    for (index, piece) in buffer.chunks_exact_mut(each).take(MOST_AT_ONCE).enumerate() {
        vectors[index] = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
        let message = &mut headers[index].msg_hdr;
        message.msg_name = (&raw mut names[index]).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_iov = &raw mut vectors[index];
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut controls[index]).cast();
        message.msg_controllen = size_of::<Small>() as _;
        count += 1;
    }
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT as _);
    // SAFETY: the first `count` headers are filled in, and every pointer of theirs is to something alive and writable
    // that has the length beside it; no two are to the same place.
    let got = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, flags, std::ptr::null_mut()) };
    let got = checked(got as isize)?;
    received.extend(headers.iter().zip(&names).zip(&controls).take(got).map(|((header, name), control)| {
        let used = header.msg_hdr.msg_controllen.min(control.0.len());
        Received::of(header.msg_len as usize, name, &control.0[..used])
    }));
    Ok(())
}

/// `struct sock_extended_err` (`linux/errqueue.h`).
fn report_of(value: &[u8]) -> Option<Report> {
    let number = |at: usize| Some(u32::from_ne_bytes(*value.get(at..)?.first_chunk()?));
    let &[origin, kind, code, ..] = value.get(4..)? else { return None };
    Some(Report { error: number(0)?.cast_signed(), local: origin == 1, icmp: (kind, code), info: number(8)? })
}

/// Read what there is of a TUN: one packet.
pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is writable and has the length that is given.
    checked(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Write one packet to a TUN.
pub(crate) fn write(fd: RawFd, packet: &[u8]) -> io::Result<()> {
    // SAFETY: `packet` is readable and has the length that is given.
    checked(unsafe { libc::write(fd, packet.as_ptr().cast(), packet.len()) }).map(drop)
}

/// Calls on `fd` return at once from now on.
pub(crate) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: the calls take numbers only.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    checked(flags as isize)?;
    // SAFETY: as above.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } as isize).map(drop)
}

/// Whether a TUN descriptor has a `virtio_net_hdr` before each packet; false for what is no TUN.
pub(crate) fn has_vnet_header(fd: RawFd) -> bool {
    let mut request = [0_u8; 40];
    // SAFETY: `TUNGETIFF` writes a `struct ifreq`, which has 40 bytes.
    let result = unsafe { libc::ioctl(fd, TUNGETIFF, request.as_mut_ptr()) };
    result >= 0 && u16::from_ne_bytes([request[16], request[17]]) & IFF_VNET_HDR != 0
}

/// What large reads of a TUN are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Large {
    Tcp,
    TcpAndUdp,
}

/// Ask the kernel for large reads of TCP and, where it can, of UDP; an error for what is no TUN.
pub(crate) fn ask_for_large_reads(fd: RawFd) -> io::Result<Large> {
    let ask = |what: libc::c_ulong| {
        // SAFETY: `TUNSETOFFLOAD` takes a number.
        checked(unsafe { libc::ioctl(fd, TUNSETOFFLOAD, what) } as isize).map(drop)
    };
    let both = ask(TUN_TSO | TUN_USO).map(|()| Large::TcpAndUdp);
    both.or_else(|_| ask(TUN_TSO).map(|()| Large::Tcp))
}

/// Wait until one of the descriptors is readable, or has an error, for so many milliseconds at most; which of them.
pub(crate) fn wait(fds: &[RawFd], ready: &mut Vec<bool>, most: Option<i32>) -> io::Result<()> {
    let mut polled: Vec<_> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let (count, timeout) = (polled.len() as libc::nfds_t, most.unwrap_or(-1));
    // SAFETY: `polled` is writable and has the length that is given.
    checked(unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) } as isize)?;
    ready.clear();
    ready.extend(polled.iter().map(|one| one.revents != 0));
    Ok(())
}

/// Bytes from which on it pays to ask for the processor's instructions.
const WIDE: usize = 128;

/// The 32-bit words of `data` added up, as `ip::add_words` does.
pub(crate) fn add_words(data: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if data.len() >= WIDE && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions, and nothing else is asked of who calls it.
        return unsafe { crate::ip::add_words_by_avx2(data) };
    }
    crate::ip::add_words(data)
}

/// Whether the processor has instructions for SHA-256 that `compress_sha256` makes use of.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_sha256() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")
}

/// Whether the processor has instructions for SHA-256 that `compress_sha256` makes use of.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const fn has_sha256() -> bool {
    false
}

/// Take blocks of several messages, as many of each, into what their hashes have come to.
pub(crate) fn compress_sha256(states: &mut [State; LANES], blocks: [&[[u8; BLOCK]]; LANES]) {
    #[cfg(target_arch = "x86_64")]
    if has_sha256() {
        // SAFETY: the processor has the instructions, and nothing else is asked of who calls it.
        unsafe { crate::sha256::compress(states, blocks) };
        return;
    }
    for (state, blocks) in states.iter_mut().zip(blocks) {
        sha2::block_api::compress256(state, blocks);
    }
}
