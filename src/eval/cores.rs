//! Work that is shared among all cores.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Parts for each core: one that is busy with something else takes fewer.
const PARTS: usize = 8;

/// What `part` makes of the numbers below `count`, in their order; each time it has a range of them.
pub(super) fn on_all<T: Send>(count: usize, part: impl Fn(Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(cores * PARTS).max(1);
    let next = AtomicUsize::new(0);
    let work = || {
        let begins = std::iter::repeat_with(|| next.fetch_add(share, Ordering::Relaxed));
        let begins = begins.take_while(|begin| *begin < count);
        begins.map(|begin| (begin, part(begin..(begin + share).min(count)))).collect::<Vec<_>>()
    };
    let mut parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    parts.sort_by_key(|(begin, _)| *begin);
    parts.into_iter().flat_map(|(_, made)| made).collect()
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
