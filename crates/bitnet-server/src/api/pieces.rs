//! Answers of JSON that are written while they are sent: numbers as text take many times the room that they take as
//! numbers, and to write all of them at once would keep the other connections waiting.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;

/// Bytes that are written at once.
const AT_ONCE: usize = 64 << 10;

/// A body that is written while it is sent.
struct Pieces {
    next: Option<String>,
    parts: Box<dyn Iterator<Item = String> + Send>,
}

/// Parts up to [`AT_ONCE`] bytes, and whether they were the last ones.
fn gather(parts: &mut impl Iterator<Item = String>) -> (String, bool) {
    let mut text = String::new();
    while text.len() < AT_ONCE {
        match parts.next() {
            Some(part) => text.push_str(&part),
            None => return (text, true),
        }
    }
    (text, false)
}

/// An answer of JSON that `parts` are together. A short one is sent whole, with its length.
pub(super) fn json_in_pieces(parts: impl Iterator<Item = String> + Send + 'static) -> Response {
    let mut parts = parts.fuse();
    let body = match gather(&mut parts) {
        (all, true) => Body::from(all),
        (first, false) => Body::new(Pieces { next: Some(first), parts: Box::new(parts) }),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let text = this.next.take().unwrap_or_else(|| gather(&mut this.parts).0);
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (count, length) in [(1, 5), (3, 10), (1000, 300), (2, AT_ONCE), (3, AT_ONCE + 1)] {
            let part = move |i: usize| char::from(b'a' + (i % 26) as u8).to_string().repeat(length);
            let mut body = json_in_pieces((0..count).map(part)).into_body();
            let mut pieces = Vec::new();
            runtime.block_on(async {
                let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
                use hyper::body::Body as _;
                while let Some(frame) = next().await {
                    pieces.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
                }
            });
            assert_eq!(pieces.concat(), (0..count).map(part).collect::<String>());
            assert!(pieces.len() > count * length / (2 * AT_ONCE + length));
        }
    }
}
