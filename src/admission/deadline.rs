//! By when the client wants to hear.

use std::time::Duration;

use crate::class::Class;
use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// Work that will not be done by then is dropped.
    pub done_by: Timestamp,
    /// The request is answered by then, if only with an error.
    pub reply_by: Timestamp,
    /// Who goes first when there is time.
    pub class: Class,
}

/// Longest time kept back for the reply: the answer must leave before the client's own timer fires.
const REPLY_MARGIN: Duration = Duration::from_millis(20);

impl Deadline {
    /// Of a request that arrived at `arrival` and may take `timeout`.
    pub(super) fn new(arrival: Timestamp, timeout: Duration, class: Class) -> Deadline {
        let margin = (timeout / 4).min(REPLY_MARGIN);
        Deadline {
            done_by: arrival.saturating_add(timeout - margin),
            reply_by: arrival.saturating_add(timeout - margin / 2),
            class,
        }
    }

    /// Of work of the server's own, which no client waits for.
    pub fn of_own_work(now: Timestamp, timeout: Duration) -> Deadline {
        Deadline::new(now, timeout, Class::Bulk)
    }
}
