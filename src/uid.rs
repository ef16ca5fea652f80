//! The post-merge pass: who owns which UID after a merge.

mod lane;
mod rows;
mod tables;
mod validity;

pub use lane::{Block, Lane};
pub use tables::{MemoryTables, Row, Table, TableError, Tables, TablesMut};
