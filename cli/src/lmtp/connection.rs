//! The pump around a session: a socket, time, and the replicas.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postmerge::blob::MAX_BLOB;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

use super::delivery::Delivery;
use super::recipients::{Recipient, Recipients};
use super::reply::Reply;
use super::session::{Event, Session};
use super::socket::Io;

/// A client that says or takes nothing for so long is gone; RFC 5321, section 4.5.3.2.7, asks for this patience.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// Bytes read at once.
const READ_BUFFER: usize = 16 << 10;

pub(super) struct Connection {
    io: Box<dyn Io>,
    session: Session,
    recipients: Arc<Recipients>,
    /// Who was taken for the present message.
    taken: Vec<Recipient>,
    delivery: Option<Delivery>,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    pub(super) fn new(
        io: Box<dyn Io>,
        host: &str,
        recipients: Arc<Recipients>,
        stopped: watch::Receiver<bool>,
    ) -> Connection {
        let session = Session::new(host, MAX_BLOB);
        Connection { io, session, recipients, taken: Vec::new(), delivery: None, stopped }
    }

    /// Converses until the client leaves, is silent for too long, or the server stops.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::Recipient { address } => self.find(&address),
                    Event::Begin { sender } => self.delivery = Some(Delivery::new(&sender)),
                    Event::Text(piece) => {
                        if let Some(delivery) = &mut self.delivery {
                            block_in_place(|| delivery.push(&piece));
                        }
                    }
                    Event::End => self.deliver().await?,
                    Event::Forget => self.taken.clear(),
                    Event::Close => {
                        self.flush().await?;
                        return self.io.shutdown().await;
                    }
                }
            }
            self.flush().await?;
            self.wait().await?;
        }
    }

    fn find(&mut self, address: &str) {
        // It may read the list of users.
        let answer = block_in_place(|| self.recipients.find(address));
        self.session.recipient(answer.map(|recipient| self.taken.push(recipient)));
    }

    /// A panic ends this connection and no other, before anything was confirmed.
    async fn deliver(&mut self) -> io::Result<()> {
        let taken = std::mem::take(&mut self.taken);
        let Some(delivery) = self.delivery.take() else { return Err(io::ErrorKind::InvalidData.into()) };
        let span = tracing::Span::current();
        let done = spawn_blocking(move || span.in_scope(|| delivery.finish(&taken)));
        self.session.delivered(&done.await.map_err(io::Error::other)?);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.session.poll_send() {
            timeout(SILENCE, self.io.write_all(&bytes)).await??;
            timeout(SILENCE, self.io.flush()).await??;
        }
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BUFFER];
        tokio::select! {
            read = timeout(SILENCE, self.io.read(&mut buffer)) => match read {
                Ok(Ok(0)) if self.session.is_inside_message() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(0)) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(Ok(len)) => self.session.receive(&buffer[..len]),
                Ok(Err(error)) => return Err(error),
                Err(_) => self.session.end(&Reply::new(421, "4.2", "too long a silence")),
            },
            // What was confirmed is safe; the client sends the rest again later (RFC 5321, section 3.8).
            _ = self.stopped.wait_for(|stop| *stop) => self.session.end(&Reply::new(421, "3.2", "the server stops")),
        }
        Ok(())
    }
}
