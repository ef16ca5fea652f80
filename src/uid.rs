//! The post-merge pass: who owns which UID after a merge.

mod lane;
mod tables;

pub use lane::{Block, Lane};
pub use tables::{MemoryTables, Row, Table, TableError, Tables, TablesMut};
