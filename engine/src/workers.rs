//! One thread for each direction: one serves the TUNs, one the sockets, so that two-way traffic uses two cores.
//!
//! Both go through the same engine, each for as long as it seals or opens a batch; what costs most, the system
//! calls, they make at the same time. Neither hands packets to the other, so none are reordered.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::interface::TunnelId;
use crate::io::{Buffers, EspSocket, Gateway};
use crate::sys;

/// A descriptor that is readable once another thread has rung.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Self> {
        sys::open_event().map(Self)
    }

    /// Ring; it may have been rung already.
    fn ring(&self) {
        let _ = sys::write(self.0.as_raw_fd(), &1_u64.to_ne_bytes());
    }

    fn quiet(&self) {
        let _ = sys::read(self.0.as_raw_fd(), &mut [0; 8]);
    }
}

/// What the threads and their owner share.
struct Shared {
    gateway: Arc<Gateway>,
    ends: AtomicBool,
    changed: [Bell; 2],
    news: Bell,
}

/// Two threads that serve a gateway until they are stopped.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread waits for.
#[derive(Clone)]
enum Source {
    Tun(TunnelId, RawFd),
    Socket(Arc<EspSocket>),
}

/// What there is to wait for.
type Sources = fn(&Gateway) -> Vec<Source>;

impl Source {
    fn fd(&self) -> RawFd {
        match self {
            Self::Tun(_, fd) => *fd,
            Self::Socket(socket) => socket.fd(),
        }
    }
}

impl Workers {
    /// Begin to serve.
    ///
    /// # Errors
    /// There are too many threads or descriptors.
    pub fn start(gateway: Arc<Gateway>) -> io::Result<Self> {
        let changed = [Bell::new()?, Bell::new()?];
        let shared = Arc::new(Shared { gateway, ends: AtomicBool::new(false), changed, news: Bell::new()? });
        let mut workers = Self { shared, threads: Vec::new() };
        let directions: [(&str, Sources); 2] = [
            ("vpnd-out", |gateway| gateway.tuns().into_iter().map(|(id, fd)| Source::Tun(id, fd)).collect()),
            ("vpnd-in", |gateway| gateway.sockets().into_iter().map(Source::Socket).collect()),
        ];
        for (direction, (name, sources)) in directions.into_iter().enumerate() {
            let shared = Arc::clone(&workers.shared);
            let thread = Builder::new().name(name.to_owned());
            workers.threads.push(thread.spawn(move || serve(&shared, direction, sources))?);
        }
        Ok(workers)
    }

    /// Readable when there are IKE messages or notices; `heard` makes it quiet again.
    #[must_use]
    pub fn news_fd(&self) -> RawFd {
        self.shared.news.0.as_raw_fd()
    }

    /// What there was to say is about to be taken.
    pub fn heard(&self) {
        self.shared.news.quiet();
    }

    /// There are other TUNs or sockets now.
    pub fn changed(&self) {
        self.shared.changed.iter().for_each(Bell::ring);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.changed();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Serve one direction until the end.
fn serve(shared: &Shared, direction: usize, sources: Sources) {
    let bell = &shared.changed[direction];
    let (mut buffers, mut ready) = (Buffers::default(), Vec::new());
    while !shared.ends.load(Ordering::Relaxed) {
        let waited = sources(&shared.gateway);
        let fds: Vec<_> = std::iter::once(bell.0.as_raw_fd()).chain(waited.iter().map(Source::fd)).collect();
        let mut is_same = true;
        while is_same {
            // Interrupted by a signal: nothing is ready.
            if sys::wait(&fds, &mut ready, None).is_err() {
                continue;
            }
            if ready[0] {
                bell.quiet();
                is_same = false;
            }
            for (source, _) in waited.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                is_same &= serve_one(shared, source, &mut buffers);
            }
            if shared.gateway.core().has_news() {
                shared.news.ring();
            }
        }
    }
}

/// Serve what is ready; false if it is not to be waited for any more.
fn serve_one(shared: &Shared, source: &Source, buffers: &mut Buffers) -> bool {
    match source {
        Source::Tun(id, _) => shared.gateway.serve_tun(*id, buffers) == crate::io::Served::Done,
        Source::Socket(socket) => {
            shared.gateway.serve_socket(socket, buffers);
            true
        }
    }
}
