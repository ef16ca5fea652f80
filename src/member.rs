//! Who belongs to an account: keys, the signed membership log, and the tickets that let somebody in.
//!
//! The log is a grow-only set of signed records that replicas merge by union; [`Members`] folds it. The fold is
//! a function of the set alone, so replicas with the same records agree on members, roles and lanes.
//! Nothing here does I/O, reads a clock or draws random numbers: time, ids and seeds are passed in.

pub(crate) mod body;
pub(crate) mod cbor;
mod chain;
mod fold;
mod keys;
mod record;
mod role;
mod rules;
mod ticket;

pub use body::Body;
pub use chain::ChainHead;
pub use fold::{MAX_RECORDS, MemberError, Members};
pub use keys::{KeyError, PeerId, PublicKey, SecretKey, Signature, TicketSecret};
pub use record::{
    MAX_ADDRESS, MAX_ADDRESSES, MAX_AFTER, MAX_NAME, MAX_RECORD, MemberName, NameError, OfferId, Record,
    RecordError, RecordId, RoleName,
};
pub use role::{Overstep, Role, RoleError};
pub use rules::{Member, Offer, OfferState, Rejection, Status};
pub use ticket::{MAX_TICKET, Ticket, TicketError};
