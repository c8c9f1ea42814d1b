//! What a command may use while it runs, in whichever protocol it came.

use crate::client::Client;
use crate::output::Output;
use crate::replica::Replica;

/// What a command may use.
pub struct Context<'t> {
    /// Where keys live.
    pub replica: &'t Replica,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// A number that clients do not know.
    pub random: u64,
    /// Where replies go.
    pub out: &'t mut Output,
    /// Who asks.
    pub client: &'t mut Client,
}

/// A cold command, for the side that decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Its name.
    pub command: &'static str,
    /// Its arguments, as the client gave them.
    pub args: Vec<Vec<u8>>,
}
