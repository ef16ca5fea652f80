//! Tickets: one line of text that lets one replica join, once.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

use super::body::{read_addresses, read_block, read_lane, read_peer, read_role, write_addresses, write_lane};
use super::cbor::{Malformed, Reader, Writer};
use super::keys::{PeerId, TicketSecret};
use super::record::OfferId;
use super::role::Role;
use crate::mailbox::{AccountId, ReplicaId};
use crate::uid::{Block, Lane};

/// Longest text that is looked at: the fullest ticket has about 1,200 characters.
pub const MAX_TICKET: usize = 2048;

const NAME: &str = "postmerge";
const VERSION: &str = "1";
/// Bytes of BLAKE3 at the end: a slip of the pen passes once in 4 billion.
const CHECKSUM: usize = 4;

/// What a guest needs to reach its inviter and to prove that it was invited. Whoever reads it can use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// The account to join.
    pub account: AccountId,
    /// The account's block of UIDs.
    pub block: Block,
    /// The endpoint to reach, and to pin.
    pub endpoint: PeerId,
    /// The replica that made the offer: only it can let the guest in.
    pub inviter: ReplicaId,
    /// Where the endpoint may be reached, as `host:port`.
    pub addresses: Vec<String>,
    /// What the guest will do.
    pub role: Role,
    /// The lane it gets.
    pub lane: Option<Lane>,
    /// Names the offer.
    pub offer: OfferId,
    /// Proves that the guest holds the ticket.
    pub secret: TicketSecret,
    /// Seconds since 1970.
    pub expires_at: u64,
}

impl Ticket {
    /// Says so if the ticket is of no use at `now`, in seconds since 1970, by the guest's own clock.
    pub fn check(&self, now: u64) -> Result<(), TicketError> {
        if now > self.expires_at {
            return Err(TicketError::Expired { since: now - self.expires_at });
        }
        Ok(())
    }

    fn decode(payload: &[u8]) -> Result<Ticket, Malformed> {
        let mut reader = Reader::new(payload);
        let later = reader.fields(10)?;
        let ticket = Ticket {
            account: AccountId::from_bytes(reader.exactly()?),
            block: read_block(&mut reader)?,
            endpoint: read_peer(&mut reader)?,
            inviter: ReplicaId::from_bytes(reader.exactly()?),
            addresses: read_addresses(&mut reader)?,
            role: read_role(&mut reader)?,
            lane: reader.optional(read_lane)?,
            offer: OfferId::from_bytes(reader.exactly()?),
            secret: TicketSecret::from_bytes(reader.exactly()?),
            expires_at: reader.uint()?,
        };
        reader.skip(later)?;
        reader.end()?;
        Ok(ticket)
    }
}

/// The ticket as text, secret included.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Writer::new();
        out.array(10).bytes(self.account.as_bytes()).uint(self.block.size().into());
        out.bytes(self.endpoint.key().as_bytes()).bytes(self.inviter.as_bytes());
        write_addresses(&mut out, &self.addresses);
        out.uint(self.role.code().into());
        write_lane(&mut out, self.lane);
        out.bytes(self.offer.as_bytes()).bytes(self.secret.expose()).uint(self.expires_at);
        let mut payload = out.finish();
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        write!(f, "{NAME}{VERSION}-{}", BASE32_NOPAD.encode(&payload).to_ascii_lowercase())
    }
}

/// Case and white space do not matter: mail programs break long lines.
impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        if text.len() > MAX_TICKET {
            return Err(TicketError::NotATicket);
        }
        let text: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        let (version, data) =
            text.strip_prefix(NAME).and_then(|rest| rest.split_once('-')).ok_or(TicketError::NotATicket)?;
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TicketError::NotATicket);
        }
        if version != VERSION {
            return Err(TicketError::Version { version: version.to_owned() });
        }
        let bytes =
            BASE32_NOPAD.decode(data.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::Altered)?;
        let (payload, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TicketError::Altered)?;
        if *sum != checksum(payload) {
            return Err(TicketError::Altered);
        }
        Ticket::decode(payload).map_err(|_| TicketError::Altered)
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::derive_key("postmerge 1 ticket checksum", payload);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Why a text is not a ticket that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Something else was pasted.
    #[error("a ticket begins with postmerge1-")]
    NotATicket,
    /// The inviter runs another version.
    #[error("this is a ticket of format {version}, this program reads format 1")]
    Version {
        /// The format's number.
        version: String,
    },
    /// A character was lost or changed on the way.
    #[error("the ticket was cut or altered on the way")]
    Altered,
    /// It came too late.
    #[error("the ticket expired {since} s ago")]
    Expired {
        /// Seconds.
        since: u64,
    },
}

impl TicketError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            TicketError::NotATicket => "paste the whole line that `postmerge invite` printed",
            TicketError::Version { .. } => "install the same version on both machines",
            TicketError::Altered => "copy the ticket again, from postmerge1- to its last character",
            TicketError::Expired { .. } => "ask for a new ticket, and check the clocks of both machines",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{MAX_ADDRESS, MAX_ADDRESSES, SecretKey};

    fn ticket(addresses: Vec<String>) -> Ticket {
        Ticket {
            account: AccountId::from_bytes([1; 16]),
            block: Block::DOVECOT,
            endpoint: SecretKey::from_seed([2; 32]).peer_id(),
            inviter: ReplicaId::from_bytes([3; 16]),
            addresses,
            role: Role::Server,
            lane: Lane::new(16, 65535),
            offer: OfferId::from_bytes([4; 16]),
            secret: TicketSecret::from_bytes([5; 16]),
            expires_at: 1000,
        }
    }

    #[test]
    fn the_text_comes_back() {
        let fullest = vec!["h".repeat(MAX_ADDRESS - 6) + ":65535"; MAX_ADDRESSES];
        for addresses in [vec![], vec!["[::1]:1".to_owned(), "a.example:993".to_owned()], fullest] {
            let ticket = ticket(addresses);
            let text = ticket.to_string();
            assert!(text.len() < MAX_TICKET);
            assert_eq!(text.parse(), Ok(ticket.clone()));
            let (head, tail) = text.split_at(40);
            assert_eq!(format!("  {}\r\n\t{tail}\n", head.to_uppercase()).parse(), Ok(ticket));
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let ticket = ticket(vec!["mail.example:7777".to_owned()]);
        let text = ticket.to_string();
        for at in "postmerge1-".len()..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(
                String::from_utf8(altered).unwrap().parse::<Ticket>(),
                Err(TicketError::Altered),
                "{at}"
            );
            assert_eq!(text[..at].parse::<Ticket>(), Err(TicketError::Altered), "{at}");
        }
        assert_eq!(
            "postmerge2-aaaa".parse::<Ticket>(),
            Err(TicketError::Version { version: "2".to_owned() })
        );
        for other in ["", "postmerge1", "postmerge-aa", "hello", &"a".repeat(5000)] {
            assert_eq!(other.parse::<Ticket>(), Err(TicketError::NotATicket));
        }
        assert_eq!(
            (ticket.check(1000), ticket.check(1005)),
            (Ok(()), Err(TicketError::Expired { since: 5 }))
        );
        assert!(!format!("{ticket:?}").contains("5, 5"), "the secret is not shown");
    }
}
