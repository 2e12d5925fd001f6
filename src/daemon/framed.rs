//! Messages with their length before them, between the front and the historian.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::observe::history::message::{encode, length};

/// Reads one message, without its length. No more is allocated than was announced, and no more may be announced than
/// `max_bytes`.
///
/// # Errors
/// The other end is gone, or sent what is no message.
pub(super) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    max_bytes: usize,
) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    from.read_exact(&mut header).await?;
    let length = length(header, max_bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message.
///
/// # Errors
/// The other end is gone, or it is too long.
pub(super) async fn write<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
    max_bytes: usize,
) -> io::Result<()> {
    let frame = encode(message, max_bytes).ok_or(io::ErrorKind::InvalidInput)?;
    to.write_all(&frame).await
}
