//! What only whole replicas can show: real stores, real sessions, real documents.

mod formats;
mod hostile;
mod pair;
mod quic;
mod repair;
mod rules;
mod sync;
