//! The program from end to end: its own binary, real processes, sockets and signals, and nothing else.

mod adopted;
mod alone;
mod beside;
mod delivered;
mod dovecot;
mod figures;
mod foreign;
mod history;
mod hosts;
mod killed;
mod maildirs;
mod manager;
mod manual;
mod pair;
mod served;
mod standing;
mod support;
mod tree;
