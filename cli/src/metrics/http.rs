//! As much of HTTP/1.1 (RFC 9112) as a scrape needs: one path, GET and HEAD, one request a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Where the page is.
pub(super) const PATH: &str = "/metrics";
/// Most connections at once: a scraper or two, and somebody who looks. Each may have a page made, so they are few.
const MAX_CONNECTIONS: usize = 8;
/// Largest request. A scraper's has some 300 bytes; a browser that has cookies for this host sends a few thousand.
const MAX_REQUEST: usize = 8 << 10;
/// A client must have asked, and must have read its answer, within this time each.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the page; it may block.
type MakePage = dyn Fn() -> anyhow::Result<String> + Send + Sync;

/// Answers clients for as long as it is polled.
pub(super) async fn answer(
    listener: TcpListener,
    page: impl Fn() -> anyhow::Result<String> + Send + Sync + 'static,
) {
    let page: Arc<MakePage> = Arc::new(page);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Too many: it is closed, and the next scrape may do better.
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let page = page.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = converse(stream, page).await {
                        tracing::debug!(%error, "a client of the metrics was cut off");
                    }
                });
            }
            // Out of file descriptors, or the client was gone already.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, page: Arc<MakePage>) -> io::Result<()> {
    let request = timeout(PATIENCE, read(&mut stream)).await??;
    let answer = match judge(&request) {
        Ok(()) => match spawn_blocking(move || page()).await.map_err(io::Error::other)? {
            Ok(page) => response("200 OK", "text/plain; version=0.0.4; charset=utf-8", &page),
            Err(error) => {
                tracing::warn!("no metrics: {error:#}");
                refusal("500 Internal Server Error")
            }
        },
        Err(status) => refusal(status),
    };
    let (head, body) = answer;
    let answer = if request.starts_with(b"HEAD ") { head } else { head + &body };
    timeout(PATIENCE, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

/// Reads up to the empty line that ends a request, or as much as is taken.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while request.len() < MAX_REQUEST && !is_whole(&request) {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(request)
}

fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|bytes| bytes == b"\r\n\r\n")
}

/// Whether the page is asked for; else what is wrong with the request.
fn judge(request: &[u8]) -> Result<(), &'static str> {
    if !is_whole(request) {
        return Err("431 Request Header Fields Too Large");
    }
    let line = request.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("400 Bad Request");
    };
    if !version.starts_with("HTTP/1.") {
        return Err("400 Bad Request");
    }
    if target.split('?').next() != Some(PATH) {
        return Err("404 Not Found");
    }
    match method {
        "GET" | "HEAD" => Ok(()),
        _ => Err("405 Method Not Allowed"),
    }
}

fn refusal(status: &str) -> (String, String) {
    response(status, "text/plain; charset=utf-8", &format!("{status}; the metrics are at {PATH}\n"))
}

/// The head and the body of a response.
fn response(status: &str, kind: &str, body: &str) -> (String, String) {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{allow}");
    (head + "Connection: close\r\n\r\n", body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_judged() {
        let judged = |line: &str| judge(format!("{line}\r\nHost: localhost\r\n\r\n").as_bytes());
        for line in ["GET /metrics HTTP/1.1", "GET /metrics?x=1 HTTP/1.0", "HEAD /metrics HTTP/1.1"] {
            assert_eq!(judged(line), Ok(()), "{line}");
        }
        for (line, status) in [
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("GET / HTTP/1.1", "404 Not Found"),
            ("GET /metrics/x HTTP/1.1", "404 Not Found"),
            ("GET /metrics HTTP/2", "400 Bad Request"),
            ("GET  /metrics HTTP/1.1", "400 Bad Request"),
            ("GET /metrics", "400 Bad Request"),
            ("", "400 Bad Request"),
            ("\u{7f}", "400 Bad Request"),
        ] {
            assert_eq!(judged(line), Err(status), "{line:?}");
        }
        assert_eq!(judge(&[b'a'; MAX_REQUEST]), Err("431 Request Header Fields Too Large"));
    }

    #[test]
    fn a_head_tells_the_length_and_what_is_allowed() {
        let (head, body) = response("200 OK", "text/plain", "four");
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(body, "four");
        assert!(refusal("405 Method Not Allowed").0.contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
