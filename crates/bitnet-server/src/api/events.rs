//! A text as a stream, of server-sent events or of lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Sleep;

use super::{ApiError, Format};
use crate::engine::{Event, Usage};
use crate::net::Peer;
use crate::state::Lease;

/// After so long without news something is sent that says nothing, so that no proxy takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes of events that are combined in one write.
const ENOUGH: usize = 16 << 10;

/// The body of a streamed answer. Dropping it, as happens when the client is gone, makes the engine cancel the texts.
pub(crate) struct Events {
    news: UnboundedReceiver<Event>,
    format: Box<dyn Format>,
    /// Usage of each text, once it has ended.
    usage: Vec<Option<Usage>>,
    begun: bool,
    finished: bool,
    silence: Pin<Box<Sleep>>,
    /// The model stays as long as its text is sent.
    _lease: Lease,
    /// Ends when the client sends nothing more: it may be gone.
    quiet: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Events {
    pub(crate) fn new(
        news: UnboundedReceiver<Event>,
        format: Box<dyn Format>,
        count: usize,
        peer: Option<Peer>,
        lease: Lease,
    ) -> Self {
        Self {
            news,
            format,
            usage: vec![None; count],
            begun: false,
            finished: false,
            silence: Box::pin(tokio::time::sleep(SILENCE)),
            _lease: lease,
            quiet: peer.map(|peer| Box::pin(peer.quiet()) as _),
        }
    }

    pub(crate) fn into_response(self) -> Response {
        let kind = HeaderValue::from_static(self.format.stream_type());
        let mut response = Response::new(Body::new(self));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // A proxy that collects the answer would undo the streaming.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Writes a new event. The stream ends after the last text has ended.
    fn take(&mut self, news: Option<Event>, out: &mut String) {
        match news {
            Some(Event::Piece { choice, text, logprob }) => self.format.piece(choice, &text, logprob, out),
            Some(Event::Done { choice, end }) => {
                self.format.done(choice, &end, out);
                if let Some(place) = self.usage.get_mut(choice) {
                    *place = Some(end.usage);
                }
                let ended: Vec<Usage> = self.usage.iter().copied().flatten().collect();
                if ended.len() == self.usage.len() {
                    self.format.all_done(&ended, out);
                    self.finished = true;
                }
            }
            Some(Event::Progress { choice, progress }) => self.format.progress(choice, &progress, out),
            Some(Event::Failed(failure)) => {
                self.format.failed(&failure.into(), out);
                self.finished = true;
            }
            None => {
                self.format.failed(&ApiError::dead(), out);
                self.finished = true;
            }
        }
    }
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut out = String::new();
        if !this.begun {
            this.begun = true;
            this.format.begin(this.usage.len(), &mut out);
        }
        while !this.finished && out.len() < ENOUGH {
            match this.news.poll_recv(cx) {
                Poll::Ready(news) => this.take(news, &mut out),
                Poll::Pending => break,
            }
        }
        if out.is_empty() && !this.finished && this.silence.as_mut().poll(cx).is_ready() {
            out.push_str(this.format.nothing());
        }
        if this.quiet.as_mut().is_some_and(|quiet| quiet.as_mut().poll(cx).is_ready()) {
            this.quiet = None;
            // If the other side is gone, its system answers with a reset.
            if !this.finished {
                out.push_str(this.format.nothing());
            }
        }
        match (out.is_empty(), this.finished) {
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
            (false, _) => {
                this.silence.as_mut().reset(tokio::time::Instant::now() + SILENCE);
                Poll::Ready(Some(Ok(Frame::data(out.into()))))
            }
        }
    }
}
