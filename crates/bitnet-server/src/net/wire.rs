//! The bytes of one connection, observed.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::slot::{BEGINNING, Slot};

/// A socket that reports to its [`Slot`], and leaves out what was sent ahead.
#[derive(Debug)]
pub(super) struct Wire {
    /// Shared with the one who watches whether the client is there.
    read: Arc<OwnedReadHalf>,
    write: OwnedWriteHalf,
    slot: Arc<Slot>,
}

impl Wire {
    pub(super) fn new(read: Arc<OwnedReadHalf>, write: OwnedWriteHalf, slot: Arc<Slot>) -> Self {
        Self { read, write, slot }
    }

    /// Leaves the bytes out of `buf` that were sent before; `Some` is how many of it count as written.
    fn skip(&self, buf: &[u8]) -> Result<Option<usize>> {
        let ahead = self.slot.ahead();
        if ahead == 0 || buf.is_empty() {
            return Ok(None);
        }
        if buf.len() < ahead || buf.get(..ahead) != BEGINNING.get(..ahead) {
            return Err(Error::new(ErrorKind::InvalidData, "the answer does not begin as answers do"));
        }
        self.slot.caught_up();
        Ok(Some(ahead))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let socket: &TcpStream = (*self.read).as_ref();
        loop {
            ready!(socket.poll_read_ready(cx))?;
            match socket.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    if read > 0 {
                        self.slot.heard();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.slot.flushed(false);
        match self.skip(buf)? {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.write).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.slot.flushed(false);
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        match self.skip(first)? {
            Some(skipped) => Poll::Ready(Ok(skipped)),
            None => Pin::new(&mut self.write).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = Pin::new(&mut self.write).poll_flush(cx);
        self.slot.flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}
