//! What a replica does. Knows keys, versions and the words clients speak; no socket, no clock, no thread.

pub mod blob;
pub mod client;
pub mod config;
pub mod context;
pub mod entry;
pub mod error;
pub mod glob;
pub mod job;
pub mod keyspace;
pub mod layout;
pub mod merkle;
pub mod output;
pub mod pipe;
pub mod replica;
pub mod reply;
pub mod resp;
pub mod search;
pub mod session;
pub mod slot;
pub mod store;
pub mod table;
pub mod usage;
pub mod version;
pub mod waits;
