//! Connections: what they may take, when they are given up, and how it is seen that a client is gone.

mod connection;
mod places;
mod slot;
mod wire;

pub(crate) use connection::Connection;
pub(crate) use places::Places;
pub(crate) use slot::Peer;
