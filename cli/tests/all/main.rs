//! The program from end to end: its own binary, real processes, sockets and signals, and nothing else.

mod alone;
mod delivered;
mod dovecot;
mod foreign;
mod history;
mod hosts;
mod maildirs;
mod pair;
mod served;
mod support;
mod tree;
