//! The threads that own sockets. Not what a command means (`turbopump-core`) and not who decides (Python).

pub mod config;
mod connection;
pub mod engine;
pub mod events;
mod janitor;
mod join;
mod listener;
pub mod peers;
mod reactor;
mod sched;
pub mod shared;
mod timers;
pub mod transfer;
pub mod udp;
