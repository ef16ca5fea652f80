//! The post-merge pass.

mod tables;

pub use tables::{MemoryTables, Row, Table, TableError, Tables, TablesMut};
