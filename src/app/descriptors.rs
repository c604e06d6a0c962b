//! File descriptors: each connection takes one, and the usual limit of 1,024 is for programs of another kind.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For everything that is not a connection of the ports of calls: the metrics port, files, epoll, libraries.
const OTHERS: u64 = 256;

/// Raises the limit of the process as far as it may, and says how many of so many connections there can be.
pub(super) fn allow(connections: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = connections as u64 + OTHERS;
    // `None`: no limit.
    let Some(now) = current.filter(|current| *current < needed) else { return connections };
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    let files = if raised.is_ok() { wanted } else { now };
    if files == needed {
        return connections;
    }
    let fewer = usize::try_from(files.saturating_sub(OTHERS)).unwrap_or(connections).max(1);
    tracing::warn!(files, fewer, "the limit of open files (ulimit -n) allows fewer than --max-connections");
    fewer
}
