//! What only whole replicas can show: real stores, real sessions, real documents.

mod bridge;
mod explain;
mod face;
mod forgetting;
mod formats;
mod found;
mod hostile;
mod import;
mod pair;
mod quic;
mod repair;
mod roles;
mod rules;
mod served;
mod sync;
mod undo;
mod verify;
