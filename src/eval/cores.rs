//! Work that is shared among all cores.

use std::ops::Range;

/// What `part` makes of the numbers below `count`, in their order: each core has a range of them.
pub(super) fn on_all<T: Send>(count: usize, part: impl Fn(Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let part = &part;
        let spawn = |begin: usize| scope.spawn(move || part(begin..(begin + share).min(count)));
        let threads: Vec<_> = (0..count).step_by(share).map(spawn).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order() {
        for count in [0, 1, 2, 3, 1000] {
            assert_eq!(on_all(count, |part| part.collect()), (0..count).collect::<Vec<_>>());
        }
    }
}
