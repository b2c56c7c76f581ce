//! Sockets: a listener, connections with limits, an orderly end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::patient::Patient;
use crate::{Options, ServerError, Service};

/// Longest head of a request in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// How long connections may take to send what is left after the engine has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A pause after the system refused a connection: it has no more file descriptors, and asking again at once would not help.
const PAUSE: Duration = Duration::from_millis(50);

/// A model behind an OpenAI-compatible HTTP interface.
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
    /// Lets the server end: it takes nothing more, what has begun may go on for [`Options::grace`], and then it is broken off and its
    /// clients are told. [`Server::run`] returns after that.
    pub fn shut_down(&self) {
        self.closing.send_replace(true);
    }
}

impl Server {
    /// Listens at [`Options::address`] and starts the thread that computes. Connections are answered from [`Server::run`] on.
    ///
    /// # Errors
    /// [`ServerError::Open`] for an address that other machines reach, without a key; an address where this process cannot
    /// listen; those of [`Service::start`].
    pub fn bind(model: bitnet::Model, options: Options) -> Result<Self, ServerError> {
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
        let service = Service::start(model, options)?;
        Ok(Self { service, listener, address, closing: watch::Sender::new(false) })
    }

    /// Where it listens; with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The model behind it.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What ends it.
    pub fn handle(&self) -> Handle {
        Handle { closing: self.closing.clone() }
    }

    /// Answers requests until [`Handle::shut_down`].
    ///
    /// # Errors
    /// [`ServerError::System`] without threads, [`ServerError::EngineFailed`] if the thread that computes has panicked.
    pub fn run(self) -> Result<(), ServerError> {
        self.run_in(&runtime()?)
    }

    /// As [`Server::run`], and until Ctrl-C or a request to terminate comes; with a second one nothing is waited for.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn run_until_signal(self) -> Result<(), ServerError> {
        let runtime = runtime()?;
        let (handle, queue) = (self.handle(), self.service.app.engine.queue.clone());
        runtime.spawn(async move {
            signal().await;
            tracing::info!("told to end: what has begun may go on for a while");
            handle.shut_down();
            signal().await;
            queue.close(Instant::now());
        });
        self.run_in(&runtime)
    }

    fn run_in(self, runtime: &Runtime) -> Result<(), ServerError> {
        let Self { service, listener, address, closing } = self;
        let options = &service.app.options;
        // More file descriptors no process has.
        let most = u32::try_from(options.max_connections).unwrap_or(u32::MAX).min(1 << 24);
        let connections = Arc::new(Semaphore::new(most as usize));
        let served = runtime.block_on(accept(&service, listener, address, &closing, &connections));
        // New requests on old connections are refused from here on.
        let ended = service.shut_down();
        let last_words = async { tokio::time::timeout(LAST_WORDS, connections.acquire_many(most)).await.is_ok() };
        if !runtime.block_on(last_words) {
            tracing::warn!("some connections did not end by themselves");
        }
        served.and(ended)
    }
}

/// Accepts connections until the server is told to end.
async fn accept(
    service: &Service,
    listener: TcpListener,
    address: SocketAddr,
    closing: &watch::Sender<bool>,
    connections: &Arc<Semaphore>,
) -> Result<(), ServerError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = service.router_for(Some(address));
    let mut told = closing.subscribe();
    loop {
        let next = async {
            let permit = connections.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            both = next => both,
            () = told_to_end(&mut told) => return Ok(()),
        };
        match (accepted, permit) {
            (Ok((stream, _)), Ok(permit)) => {
                let connection = Connection {
                    router: TowerToHyperService::new(router.clone()),
                    closing: closing.subscribe(),
                    _permit: permit,
                };
                tokio::spawn(connection.serve(stream, service.app.options.clone()));
            }
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
            // Nobody closes the semaphore.
            (_, Err(_)) => return Ok(()),
        }
    }
}

/// Waits until the server is told to end.
async fn told_to_end(closing: &mut watch::Receiver<bool>) {
    // The other side is gone only when the server is.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// One connection.
struct Connection {
    router: TowerToHyperService<axum::Router>,
    closing: watch::Receiver<bool>,
    /// Its place among those that may be open.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Answers the requests of the connection. Dropping the future of an answer, or its body, is how the engine learns that the client
    /// is gone.
    async fn serve(self, stream: TcpStream, options: Options) {
        let Self { router, mut closing, _permit } = self;
        // Each token is a small packet of its own; without this the system would collect them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "packets of this connection are collected");
        }
        let io = TokioIo::new(Patient::new(stream, options.write_timeout));
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(options.read_timeout)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(io, router)
        );
        let mut told = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = told_to_end(&mut closing), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

/// One thread is enough to move text, and leaves the CPUs to the model; large machines get a second one.
fn runtime() -> Result<Runtime, ServerError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(if cpus > 8 { 2 } else { 1 })
        // Tokenizers and grammars; what else comes waits.
        .max_blocking_threads(4)
        .thread_name("bitnet-http")
        .enable_all()
        .build()?;
    Ok(runtime)
}

/// Waits for Ctrl-C or a request to terminate.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Without signals only the handle ends the server.
        std::future::pending::<()>().await;
    }
}
