//! Work that is short for most calls and long for a few, on threads that other calls need.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Reading or writing more bytes than this takes some 100 µs, which is as long as other tasks should be made to wait.
const LONG: usize = 256 << 10;

/// Runs `work`, which goes over so many bytes; if they are many, the other tasks of this thread go on elsewhere.
pub fn over<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let movable = || Handle::try_current().is_ok_and(|on| on.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > LONG && movable() { tokio::task::block_in_place(work) } else { work() }
}
