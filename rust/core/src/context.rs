//! What a command may use while it runs, in whichever protocol it came.

use crate::client::Client;
use crate::output::Output;
use crate::replica::Replica;
use crate::share::Share;

/// What a session does before others have their turn, in nanoseconds: about, as it is estimated from what
/// commands do, for there is no clock here. The reactor gives a client four such steps.
pub const STEP_NS: u64 = 250_000;

/// About how long every command takes: the cheapest ones, so that what a client sends at once is rarely cut.
pub const COMMAND_NS: u64 = 100;

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
    /// About how many nanoseconds the command took beyond what every command takes.
    pub work_ns: u64,
}

impl Context<'_> {
    /// Of which keys the client is told, if it asks every node for its own, as those do that follow
    /// redirects: so it is told of each key once. `None` for all that this node keeps.
    pub fn share(&self) -> Option<Share> {
        let routes = self.replica.outbox()?.routes();
        let asks_all = self.client.redirect && !self.client.guest && !routes.keeps_all();
        asks_all.then(|| Share::new(routes, None))
    }
}

/// A cold command, for the side that decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Its name.
    pub command: &'static str,
    /// Its arguments, as the client gave them.
    pub args: Vec<Vec<u8>>,
}
