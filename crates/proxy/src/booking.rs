//! The journal of a node: opened when it starts, so that budgets go on with what was spent, and closed when it stops.

use std::time::SystemTime;

use config::Snapshot;
use journal::{Journal, State};
use ledger::Moment;

use crate::node::Problem;

/// The journal in the folder that the document names; `None` if it names none.
pub fn open(snapshot: &Snapshot) -> Result<Option<Journal>, Problem> {
    let Some(folder) = &snapshot.ledger.data else { return Ok(None) };
    let books = &snapshot.books;
    let since = books.needed_since(Moment::from(SystemTime::now()));
    let health = books.health();
    let told = move |state: &State| match state {
        State::Writing => {
            health.set_unbooked(false);
            tracing::info!("what calls cost is written down again");
        }
        State::Full(error) => {
            health.set_unbooked(true);
            tracing::error!(%error, "the disk is full: what calls cost cannot be written down, and what waits is kept in memory");
        }
        State::Failing(error) => {
            health.set_unbooked(true);
            tracing::error!(%error, "what calls cost cannot be written down");
        }
        State::Behind(entries) => {
            health.set_unbooked(true);
            tracing::error!(entries, "the disk is too slow for what calls cost to be written down: entries are lost");
        }
        State::Unspooled(error) => {
            tracing::error!(
                %error,
                "there is no file to be had for what calls cost: until the next start, what is not yet written is lost if \
                 this process is killed"
            );
        }
    };
    match Journal::open(folder, journal::Settings::default(), since, |entry| books.restore(entry), told) {
        Ok((journal, recovery)) => {
            for torn in &recovery.torn {
                tracing::warn!(file = %torn.file.display(), at = torn.at, bytes = torn.bytes, "a torn end was cut off");
            }
            if recovery.spooled > 0 || recovery.crashed > 0 || recovery.damaged > 0 {
                tracing::warn!(
                    recovered = recovery.spooled,
                    crashed = recovery.crashed,
                    damaged = recovery.damaged,
                    "the last process did not end well: what it had reserved is booked as spent"
                );
            }
            Ok(Some(journal))
        }
        Err(error) => Err(Problem { at: "ledger.data".into(), message: crate::node::chain(&error) }),
    }
}
