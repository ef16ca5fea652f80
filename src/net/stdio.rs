//! The same conversation over pipes: `ssh host postmerge stdio` needs no port and no root.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::NetError;
use super::connection::Connection;
use crate::sync::Side;

/// What both sides say first, before a nonce of 64 hexadecimal digits and the end of the line.
const MAGIC: &str = "postmerge-stdio-1 ";
/// Most bytes of greetings (motd, banners, shell noise) before that.
const MAX_NOISE: usize = 64 << 10;
/// A command that never greets must not hold its caller for ever; but ssh may ask its user for a passphrase first, and
/// somebody who looks for it needs a minute or two.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes a connection of a pair of pipes. `nonce` is 32 bytes that the caller drew from the system's entropy;
/// the hash of both nonces names the connection. What the other end prints before its magic line is skipped.
/// The pipes must be trusted to lead to the same process both ways: ssh has checked who is there.
pub async fn pipe(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    side: Side,
    nonce: [u8; 32],
) -> Result<Connection, NetError> {
    let mut writer: Box<dyn AsyncWrite + Send + Unpin> = Box::new(writer);
    let mut reader: BufReader<Box<dyn AsyncRead + Send + Unpin>> = BufReader::new(Box::new(reader));
    let ours = format!("{MAGIC}{}\n", data_encoding::HEXLOWER.encode(&nonce));
    writer.write_all(ours.as_bytes()).await.map_err(NetError::Lost)?;
    writer.flush().await.map_err(NetError::Lost)?;
    let theirs = tokio::time::timeout(GREETING_TIMEOUT, greeting(&mut reader))
        .await
        .map_err(|_| NetError::Timeout { after: GREETING_TIMEOUT })??;
    if theirs == nonce {
        // The pipe leads back to ourselves.
        return Err(NetError::NotPostmerge);
    }
    let (first, second) = match side {
        Side::Initiator => (nonce, theirs),
        Side::Responder => (theirs, nonce),
    };
    let binding = blake3::derive_key("postmerge 1 stdio binding", &[first, second].concat());
    Ok(Connection::pipe(binding, side, reader, writer))
}

/// Skips noise up to the line that ends in the magic and a nonce.
async fn greeting(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Result<[u8; 32], NetError> {
    let mut line = Vec::new();
    let mut left = MAX_NOISE;
    loop {
        let available = reader.fill_buf().await.map_err(NetError::Lost)?;
        if available.is_empty() || left == 0 {
            return Err(NetError::NotPostmerge);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1).min(left);
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        left -= taken;
        if line.ends_with(b"\n") {
            if let Some(nonce) = nonce(&line) {
                return Ok(nonce);
            }
            line.clear();
        }
    }
}

fn nonce(line: &[u8]) -> Option<[u8; 32]> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let at = line.len().checked_sub(64)?;
    let (before, digits) = line.split_at(at);
    if !before.ends_with(MAGIC.as_bytes()) {
        return None;
    }
    data_encoding::HEXLOWER.decode(digits).ok()?.try_into().ok()
}
