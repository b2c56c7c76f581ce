//! Sockets: a listener, an orderly end, signals.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
#[cfg(unix)]
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::net::{Connection, Places};
use crate::pool::told;
use crate::service::ENGINE_END_LIMIT;
use crate::{Models, Options, ServerError, Service};

/// How long connections may take to send their rest after the engine has ended; less than the time until the end.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// Grace time of the server beyond its shutdown deadline, before the process ends without it.
const SPARE: Duration = Duration::from_millis(200);
/// A pause after the system rejected a connection: it has no more file descriptors, and an immediate retry would not
/// help.
const PAUSE: Duration = Duration::from_millis(50);

/// One model or several with an OpenAI-compatible HTTP interface.
///
/// ```no_run
/// use bitnet_server::{Options, Server};
/// let model = bitnet::Model::load("model.gguf")?;
/// let server = Server::bind(model, Options::default())?;
/// println!("http://{}/v1", server.address());
/// server.run_until_signal()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    service: Service,
    listener: TcpListener,
    address: SocketAddr,
    closing: watch::Sender<bool>,
}

/// Ends a [`Server`] from another thread.
#[derive(Clone, Debug)]
pub struct Handle {
    closing: watch::Sender<bool>,
}

impl Handle {
    /// Ends the server: it accepts nothing more, running texts may continue for [`Options::grace`], and then they are
    /// cancelled and their clients notified. [`Server::run`] returns after that.
    pub fn shut_down(&self) {
        self.closing.send_replace(true);
    }
}

impl Server {
    /// Listens at [`Options::address`] and starts the thread that computes. Connections are answered from
    /// [`Server::run`] on.
    ///
    /// # Errors
    /// [`ServerError::Open`] for an address that other machines can reach, without a key; an address at which this
    /// process cannot listen; the errors of [`Service::start`].
    pub fn bind(models: impl Into<Models>, options: Options) -> Result<Self, ServerError> {
        let address = options.address;
        if !address.ip().is_loopback() && options.api_key.is_none() && !options.without_key {
            return Err(ServerError::Open { address });
        }
        let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => ServerError::PortInUse { address },
            _ => ServerError::Listen { address, source },
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let service = Service::start(models, options)?;
        Ok(Self { service, listener, address, closing: watch::Sender::new(false) })
    }

    /// Its address; if the requested port is 0, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The models that it serves.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The shutdown signal.
    pub fn handle(&self) -> Handle {
        Handle { closing: self.closing.clone() }
    }

    /// Answers requests until [`Handle::shut_down`], and returns at most two seconds after [`Options::grace`], even if
    /// work still runs.
    ///
    /// # Errors
    /// [`ServerError::System`] without threads, [`ServerError::EngineFailed`] if the computing thread has panicked,
    /// [`ServerError::Stuck`] if it has not ended in time; then it is abandoned.
    pub fn run(self) -> Result<(), ServerError> {
        self.run_in(runtime()?)
    }

    /// Like [`Server::run`], and until Ctrl-C or a request to terminate comes. After a second one nothing is waited
    /// for: this returns at once, and the process is to end.
    ///
    /// # Errors
    /// The errors of [`Server::run`], and [`ServerError::Killed`] after a second signal.
    pub fn run_until_signal(self) -> Result<(), ServerError> {
        let runtime = runtime()?;
        let handle = self.handle();
        let last = self.service.site.options.grace + ENGINE_END_LIMIT;
        let (ended, mut news) = oneshot::channel();
        // Signals have this thread for themselves, so that no other work can keep them from having their
        // effect.
        let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || drop(ended.send(self.run_in(runtime)));
        std::thread::Builder::new().name("bitnet-server".into()).spawn(run)?;
        let outcome = signals.block_on(async {
            let mut signals = Signals::new();
            tokio::select! {
                ended = &mut news => return ended,
                _ = signals.next() => {}
            }
            tracing::info!("shutting down: running texts may continue for a while");
            handle.shut_down();
            tokio::select! {
                ended = &mut news => ended,
                signal = signals.next() => Ok(Err(ServerError::Killed { signal })),
                () = tokio::time::sleep(last + SPARE) => Ok(Err(ServerError::Stuck { after: ENGINE_END_LIMIT })),
            }
        });
        signals.shutdown_background();
        outcome.unwrap_or(Err(ServerError::EngineFailed))
    }

    fn run_in(self, runtime: Runtime) -> Result<(), ServerError> {
        let Self { service, listener, address, closing } = self;
        let (options, metrics) = (&service.site.options, service.site.metrics.clone());
        let places = Places::new(options.max_connections, options.head_timeout, metrics);
        let served = runtime.block_on(accept(&service, listener, address, &closing, &places));
        // New requests on old connections are rejected from here on.
        let deadline = Instant::now() + service.site.options.grace;
        let ended = service.shut_down_at(deadline);
        let left = LAST_WORDS.min((deadline + ENGINE_END_LIMIT).saturating_duration_since(Instant::now()));
        if runtime.block_on(async { tokio::time::timeout(left, places.all_free()).await.is_err() }) {
            tracing::warn!("some connections did not end by themselves");
        }
        runtime.shutdown_background();
        served.and(ended)
    }
}

/// Accepts connections until the server is asked to end.
async fn accept(
    service: &Service,
    listener: TcpListener,
    address: SocketAddr,
    closing: &watch::Sender<bool>,
    places: &Arc<Places>,
) -> Result<(), ServerError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = service.router_for(Some(address));
    let mut closed = closing.subscribe();
    loop {
        // First the connection, then its place: only for one that is there another one is closed.
        let next = async {
            let accepted = listener.accept().await;
            let place = if accepted.is_ok() { Some(places.take().await) } else { None };
            (accepted, place)
        };
        let next = tokio::select! {
            both = next => both,
            () = told(&mut closed) => return Ok(()),
        };
        match next {
            (Ok((stream, _)), Some(place)) => {
                let connection = Connection { router: router.clone(), closing: closing.subscribe(), place };
                let site = service.site.clone();
                tokio::spawn(async move { connection.serve(stream, &site.options).await });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // It is most often file descriptors that there are too few of.
                places.evict();
                tokio::time::sleep(PAUSE).await;
            }
            (Ok(_), None) => {}
        }
    }
}

/// One thread is enough to move text, and leaves the CPUs to the model; large machines get a second one. Work that
/// computes has separate threads.
fn runtime() -> Result<Runtime, ServerError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(if cpus > 8 { 2 } else { 1 })
        .thread_name("bitnet-http")
        .enable_all()
        .build()?;
    Ok(runtime)
}

/// Ctrl-C and requests to terminate, none of which is lost between two checks.
struct Signals {
    #[cfg(unix)]
    all: Vec<(i32, tokio::signal::unix::Signal)>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        // Without signals only the handle ends the server.
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self { all: kinds.into_iter().filter_map(|kind| Some((kind.as_raw_value(), signal(kind).ok()?))).collect() }
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|cx| {
            for (number, signal) in &mut self.all {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self {}
    }

    /// The number that Ctrl-C has elsewhere.
    async fn next(&mut self) -> i32 {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals only the handle ends the server.
            std::future::pending::<()>().await;
        }
        2
    }
}
