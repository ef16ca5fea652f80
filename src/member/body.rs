//! What a membership record can say, and how it is written.

use super::cbor::{Malformed, Reader, Writer};
use super::keys::{PeerId, PublicKey};
use super::record::{MAX_ADDRESS, MAX_ADDRESSES, MAX_NAME, MemberName, OfferId, RecordError};
use super::role::Role;
use crate::mailbox::ReplicaId;
use crate::uid::{Block, Lane};

/// What a record says. Its author is the subject of every sentence below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Makes the account and is its first member; owns every UID, whether it claims or not.
    Found {
        /// Random bytes that make the account's id its own.
        salt: [u8; 16],
        /// How many consecutive UIDs a lane holds at a time.
        block: Block,
        /// The founder's endpoint.
        endpoint: PeerId,
        /// What people call the founder.
        name: MemberName,
        /// What the founder does.
        role: Role,
    },
    /// Offers membership, once. A lane that is offered is given away for good, so this must be durable before
    /// the ticket is shown.
    Offer {
        /// Names the offer.
        offer: OfferId,
        /// What the new member will do.
        role: Role,
        /// The lane it gets, and the lane that the author keeps; for a server.
        lane: Option<(Lane, Lane)>,
        /// Seconds since 1970; judged by the author alone when somebody comes.
        expires_at: u64,
        /// An offer of the author that nobody took: it ends, and its lane is offered again.
        replaces: Option<OfferId>,
    },
    /// Lets somebody in who brought the ticket of the author's offer.
    Admit {
        /// The offer that this uses up.
        offer: OfferId,
        /// The new member.
        replica: ReplicaId,
        /// Its key.
        key: PublicKey,
        /// Its endpoint.
        endpoint: PeerId,
        /// What people call it.
        name: MemberName,
    },
    /// Ends a membership. Records of that member which the author did not know are void.
    Revoke {
        /// The member that goes.
        replica: ReplicaId,
        /// The number of its last change that counts; none of its changes if nothing.
        last: Option<u64>,
    },
    /// Goes on as another replica, with the same lane: a store that was restored from a backup.
    Succeed {
        /// The new replica.
        replica: ReplicaId,
        /// Its key.
        key: PublicKey,
        /// Its endpoint.
        endpoint: PeerId,
    },
    /// Says where it can be reached, as `host:port`; the latest counts.
    Address {
        /// At most [`MAX_ADDRESSES`] of at most [`MAX_ADDRESS`] bytes.
        addresses: Vec<String>,
    },
    /// Gives a member that is no server another role, which is no server's either: a server has shown UIDs.
    Assign {
        /// The member.
        replica: ReplicaId,
        /// What it does from now on.
        role: Role,
    },
    /// A kind of a later version: kept and passed on, without effect here.
    Unknown(u64),
}

impl Body {
    /// The number of the kind.
    pub(super) fn kind(&self) -> u64 {
        match self {
            Body::Found { .. } => 1,
            Body::Offer { .. } => 2,
            Body::Admit { .. } => 3,
            Body::Revoke { .. } => 4,
            Body::Succeed { .. } => 5,
            Body::Address { .. } => 6,
            Body::Assign { .. } => 7,
            Body::Unknown(kind) => *kind,
        }
    }

    pub(super) fn write(&self, out: &mut Writer) -> Result<(), RecordError> {
        match self {
            Body::Found { salt, block, endpoint, name, role } => {
                out.array(5).bytes(salt).uint(block.size().into()).bytes(endpoint.key().as_bytes());
                out.text(name.as_str()).uint(role.code().into());
            }
            Body::Offer { offer, role, lane, expires_at, replaces } => {
                out.array(6).bytes(offer.as_bytes()).uint(role.code().into());
                write_lane(out, lane.map(|(given, _)| given));
                write_lane(out, lane.map(|(_, kept)| kept));
                out.uint(*expires_at);
                match replaces {
                    Some(offer) => out.bytes(offer.as_bytes()),
                    None => out.null(),
                };
            }
            Body::Admit { offer, replica, key, endpoint, name } => {
                out.array(5).bytes(offer.as_bytes()).bytes(replica.as_bytes()).bytes(key.as_bytes());
                out.bytes(endpoint.key().as_bytes()).text(name.as_str());
            }
            Body::Revoke { replica, last } => {
                out.array(2).bytes(replica.as_bytes());
                match last {
                    Some(last) => out.uint(*last),
                    None => out.null(),
                };
            }
            Body::Succeed { replica, key, endpoint } => {
                out.array(3).bytes(replica.as_bytes()).bytes(key.as_bytes()).bytes(endpoint.key().as_bytes());
            }
            Body::Address { addresses } => {
                out.array(1);
                write_addresses(out, addresses);
            }
            Body::Assign { replica, role } => {
                out.array(2).bytes(replica.as_bytes()).uint(role.code().into());
            }
            Body::Unknown(kind) => return Err(RecordError::Kind { kind: *kind }),
        }
        Ok(())
    }

    pub(super) fn read(kind: u64, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
        let known = match kind {
            1 | 3 => 5,
            2 => 6,
            4 | 7 => 2,
            5 => 3,
            6 => 1,
            kind => return reader.skip(1).map(|()| Body::Unknown(kind)),
        };
        let later = reader.fields(known)?;
        let body = match kind {
            1 => Body::Found {
                salt: reader.exactly()?,
                block: read_block(reader)?,
                endpoint: read_peer(reader)?,
                name: read_name(reader)?,
                role: read_role(reader)?,
            },
            2 => read_offer(reader)?,
            3 => Body::Admit {
                offer: OfferId(reader.exactly()?),
                replica: ReplicaId::from_bytes(reader.exactly()?),
                key: PublicKey::from_bytes(reader.exactly()?),
                endpoint: read_peer(reader)?,
                name: read_name(reader)?,
            },
            4 => Body::Revoke {
                replica: ReplicaId::from_bytes(reader.exactly()?),
                last: reader.optional(Reader::uint)?,
            },
            5 => Body::Succeed {
                replica: ReplicaId::from_bytes(reader.exactly()?),
                key: PublicKey::from_bytes(reader.exactly()?),
                endpoint: read_peer(reader)?,
            },
            6 => Body::Address { addresses: read_addresses(reader)? },
            _ => Body::Assign { replica: ReplicaId::from_bytes(reader.exactly()?), role: read_role(reader)? },
        };
        reader.skip(later)?;
        Ok(body)
    }
}

fn read_offer(reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let offer = OfferId(reader.exactly()?);
    let role = read_role(reader)?;
    let lane = match (reader.optional(read_lane)?, reader.optional(read_lane)?) {
        (Some(given), Some(kept)) => Some((given, kept)),
        (None, None) => None,
        _ => return Err(Malformed),
    };
    let expires_at = reader.uint()?;
    let replaces = reader.optional(Reader::exactly)?.map(OfferId);
    Ok(Body::Offer { offer, role, lane, expires_at, replaces })
}

pub(super) fn write_lane(out: &mut Writer, lane: Option<Lane>) {
    match lane {
        Some(lane) => out.array(2).uint(lane.bits().into()).uint(lane.index().into()),
        None => out.null(),
    };
}

pub(super) fn read_lane(reader: &mut Reader<'_>) -> Result<Lane, Malformed> {
    if reader.array(2)? != 2 {
        return Err(Malformed);
    }
    let bits = u8::try_from(reader.uint()?).map_err(|_| Malformed)?;
    let index = u32::try_from(reader.uint()?).map_err(|_| Malformed)?;
    if bits > Lane::MAX_BITS {
        return Err(Malformed);
    }
    Lane::new(bits, index).ok_or(Malformed)
}

pub(super) fn read_block(reader: &mut Reader<'_>) -> Result<Block, Malformed> {
    u32::try_from(reader.uint()?).ok().and_then(Block::new).ok_or(Malformed)
}

pub(super) fn read_peer(reader: &mut Reader<'_>) -> Result<PeerId, Malformed> {
    Ok(PeerId::new(PublicKey::from_bytes(reader.exactly()?)))
}

pub(crate) fn read_name(reader: &mut Reader<'_>) -> Result<MemberName, Malformed> {
    MemberName::new(reader.text(MAX_NAME)?).map_err(|_| Malformed)
}

pub(super) fn read_role(reader: &mut Reader<'_>) -> Result<Role, Malformed> {
    Role::from_code(reader.uint()?).ok_or(Malformed)
}

pub(super) fn write_addresses(out: &mut Writer, addresses: &[String]) {
    out.array(addresses.len());
    for address in addresses {
        out.text(address);
    }
}

/// Addresses are shown to people and given to a resolver: printable ASCII with a port.
pub(super) fn read_addresses(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let mut addresses = Vec::new();
    for _ in 0..reader.array(MAX_ADDRESSES)? {
        let address = reader.text(MAX_ADDRESS)?;
        let (host, port) = address.rsplit_once(':').ok_or(Malformed)?;
        if host.is_empty() || !address.bytes().all(|b| b.is_ascii_graphic()) || port.parse::<u16>().is_err() {
            return Err(Malformed);
        }
        addresses.push(address.to_owned());
    }
    Ok(addresses)
}
