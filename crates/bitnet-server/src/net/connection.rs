//! One connection from its begin to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutWriter;

use super::places::Place;
use super::slot::{Busy, Patience, Peer, Slot};
use super::wire::Wire;
use crate::Options;
use crate::pool::told;

/// Longest head of a request in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// How long, and for how many bytes, a client may continue to send after the last answer: closing at once would discard
/// the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 8 << 20;
/// Interval for polling bytes that a client has sent and that are not read yet.
const UNREAD: Duration = Duration::from_millis(50);
/// Between two looks whether a client that sends nothing more is there: at first, and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// One connection.
pub(crate) struct Connection {
    pub(crate) router: axum::Router,
    pub(crate) closing: watch::Receiver<bool>,
    /// Its place among the open connections.
    pub(crate) place: Place,
}

impl Connection {
    /// Answers the requests of the connection. Dropping the future of an answer, or its body, is how the engine learns
    /// that the client is gone.
    pub(crate) async fn serve(self, stream: TcpStream, options: &Options) {
        let Self { router, mut closing, place } = self;
        // Each token is a small packet of its own; without this the system would collect them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "packets of this connection are collected");
        }
        let patience = Patience { head: options.head_timeout, idle: options.idle_timeout };
        let (read, write) = stream.into_split();
        let read = Arc::new(read);
        let wire = Wire::new(read.clone(), write, place.slot.clone());
        let service = Watched { inner: TowerToHyperService::new(router), slot: place.slot.clone() };
        let mut connection = Box::pin(
            http1::Builder::new()
                .timer(TokioTimer::new())
                // hyper does not know which of the two times applies.
                .header_read_timeout(None::<Duration>)
                // A client that has sent a whole request may end its side; whether it is gone altogether is looked
                // after below.
                .half_close(true)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(gives_up(wire, options.write_timeout)), service),
        );
        let mut given_up = std::pin::pin!(given_up(&read, &place.slot, patience));
        let mut is_told = false;
        let whole = loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = &ended {
                        tracing::debug!(%error, "a connection ended");
                    }
                    break true;
                }
                why = given_up.as_mut() => {
                    tracing::debug!(why, "a connection is given up");
                    break false;
                }
                () = told(&mut closing), if !is_told => {
                    is_told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        // Ends our side, and with it every request that is under way.
        drop(connection);
        if whole {
            tokio::select! {
                () = linger(&read, if is_told { LINGER / 5 } else { LINGER }) => {}
                () = place.slot.evicted.notified() => {}
            }
        }
    }
}

/// `stream`, whose writes fail when they have made no progress for `limit`: a client that reads nothing would otherwise
/// hold its connection for ever.
fn gives_up<S: AsyncWrite>(stream: S, limit: Duration) -> Pin<Box<TimeoutWriter<S>>> {
    /// Longer times could not be added to the clock.
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(limit.min(A_YEAR)));
    Box::pin(stream)
}

/// Takes what a client goes on to send, until it has ended its side, or for so long.
async fn linger(read: &OwnedReadHalf, longest: Duration) {
    let rest = async {
        let (mut total, mut bytes) = (0, vec![0; 16 << 10]);
        while total < LINGER_BYTES && read.readable().await.is_ok() {
            match read.try_read(&mut bytes) {
                Ok(0) => return,
                Ok(n) => total += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(longest, rest).await;
}

/// Returns when the connection should be closed, with the reason.
async fn given_up(read: &OwnedReadHalf, slot: &Slot, patience: Patience) -> &'static str {
    tokio::select! {
        () = overdue(slot, patience) => "no request came in time",
        () = gone(AsRef::<TcpStream>::as_ref(read), slot) => "the client is gone",
        () = slot.evicted.notified() => "it was idle, and others wait",
    }
}

/// Ends when a request has not come in time.
async fn overdue(slot: &Slot, patience: Patience) {
    loop {
        let Some(deadline) = slot.deadline(patience) else {
            slot.changed.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => {}
            () = slot.changed.notified() => {}
        }
        if slot.deadline(patience).is_some_and(|deadline| deadline <= Instant::now()) {
            return;
        }
    }
}

/// Ends when the client is gone while it has a request.
///
/// A client that has ended its side may still wait for the answer; to the system here both look the same. So something
/// is sent that is right in any case, the first bytes that every answer has: to a client that is gone the other system
/// answers with a reset.
async fn gone(socket: &TcpStream, slot: &Slot) {
    loop {
        match socket.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => break,
            Ok(_) => tokio::time::sleep(UNREAD).await,
            Err(_) => return,
        }
    }
    slot.goes_quiet();
    let (mut pause, last) = LOOKS;
    loop {
        slot.send_ahead(|byte| socket.try_write(byte).is_ok_and(|written| written > 0));
        tokio::time::sleep(pause).await;
        if !matches!(socket.take_error(), Ok(None)) {
            return;
        }
        pause = (2 * pause).min(last);
    }
}

/// The router, which reports requests and answers to the slot.
struct Watched {
    inner: TowerToHyperService<axum::Router>,
    slot: Arc<Slot>,
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<Answered>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let busy = Busy::new(&self.slot);
        request.extensions_mut().insert(Peer::of(&self.slot));
        let (answer, slot) = (self.inner.call(request), self.slot.clone());
        Box::pin(async move {
            let answer = answer.await?;
            slot.answers();
            Ok(answer.map(|body| Answered { body, _busy: busy }))
        })
    }
}

/// The body of an answer: the request is in progress until it was sent.
struct Answered {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answered {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_a_client_does_not_read_fail_in_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut clients = Vec::new();
            let mut accepted = async |limit| {
                clients.push(TcpStream::connect(address).await.unwrap());
                gives_up(listener.accept().await.unwrap().0, limit)
            };
            // The longest time is accepted, and bytes that the socket has room for are written at once.
            let (mut patient, mut hasty) = (accepted(Duration::MAX).await, accepted(Duration::from_millis(20)).await);
            let write = async |stream: &mut Pin<Box<TimeoutWriter<TcpStream>>>| {
                std::future::poll_fn(|cx| stream.as_mut().poll_write(cx, &[0; 1 << 16])).await.map_err(|e| e.kind())
            };
            assert!(write(&mut patient).await.is_ok_and(|n| n > 0));
            let error = loop {
                if let Err(error) = write(&mut hasty).await {
                    break error;
                }
            };
            assert_eq!(error, std::io::ErrorKind::TimedOut);
        });
    }
}
