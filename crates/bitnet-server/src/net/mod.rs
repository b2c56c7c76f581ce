//! Connections: their limits, when they are closed, and how the server notices that a client is gone.

mod connection;
mod places;
mod slot;
mod wire;

pub(crate) use connection::Connection;
pub(crate) use places::Places;
pub(crate) use slot::Peer;
