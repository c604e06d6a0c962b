//! The waiting jobs of one modality, in the three orders in which the scheduler asks for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Job, JobId};
use crate::class::Class;
use crate::clock::Timestamp;

/// A job is in all of the orders and counts, or in none. What changes them is O(log n); `live` and `window` pass over
/// what they count or leave out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Most urgent first: (effective deadline, id).
    by_urgency: BTreeMap<(Timestamp, JobId), Waiting>,
    by_deadline: BTreeSet<(Timestamp, JobId)>,
    by_arrival: BTreeSet<(Timestamp, JobId)>,
    /// Number of waiting rows of each length.
    by_length: BTreeMap<u32, usize>,
    effective: HashMap<JobId, Timestamp>,
    /// Sum of the lengths.
    tokens: usize,
    interactive: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    job: Job,
    arrival: Timestamp,
}

impl Queue {
    pub(super) fn push(&mut self, arrival: Timestamp, due: Timestamp, job: Job) {
        debug_assert!(!self.contains(job.id), "{:?} is queued twice", job.id);
        let effective = job.deadline.min(due);
        self.by_urgency.insert((effective, job.id), Waiting { job, arrival });
        self.by_deadline.insert((job.deadline, job.id));
        self.by_arrival.insert((arrival, job.id));
        *self.by_length.entry(job.tokens).or_default() += 1;
        self.effective.insert(job.id, effective);
        self.tokens += job.tokens as usize;
        self.interactive += usize::from(job.class == Class::Interactive);
        self.assert_consistent();
    }

    /// Removes the most urgent job.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let (_, id) = *self.by_urgency.first_key_value()?.0;
        self.remove(id)
    }

    /// Removes a job whose deadline is not after `now`.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<JobId> {
        let (deadline, id) = *self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.remove(id).map(|job| job.id)
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Job> {
        let effective = self.effective.remove(&id)?;
        let Waiting { job, arrival } = self.by_urgency.remove(&(effective, id))?;
        self.by_deadline.remove(&(job.deadline, id));
        self.by_arrival.remove(&(arrival, id));
        self.tokens -= job.tokens as usize;
        self.interactive -= usize::from(job.class == Class::Interactive);
        if let Some(count) = self.by_length.get_mut(&job.tokens) {
            *count -= 1;
            if *count == 0 {
                self.by_length.remove(&job.tokens);
            }
        }
        self.assert_consistent();
        Some(job)
    }

    fn assert_consistent(&self) {
        let jobs = self.len();
        let orders = [self.by_deadline.len(), self.by_arrival.len(), self.effective.len()];
        debug_assert_eq!(orders, [jobs; 3], "jobs by deadline, by arrival and by id, where {jobs} wait");
        debug_assert_eq!(self.by_length.values().sum::<usize>(), jobs, "jobs by length");
        debug_assert!(self.interactive <= jobs, "{} of {jobs} jobs are interactive", self.interactive);
        debug_assert!(jobs > 0 || self.tokens == 0, "{} tokens of no job", self.tokens);
    }

    pub(super) fn contains(&self, job: JobId) -> bool {
        self.effective.contains_key(&job)
    }

    pub(super) fn len(&self) -> usize {
        self.by_urgency.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_urgency.is_empty()
    }

    /// Arrival of the job that has waited longest.
    pub(super) fn first_arrival(&self) -> Option<Timestamp> {
        self.by_arrival.first().map(|(arrival, _)| *arrival)
    }

    /// The earliest deadline of a client.
    pub(super) fn first_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Jobs whose deadline is later than `after`.
    pub(super) fn live(&self, after: Timestamp) -> usize {
        self.len() - self.by_deadline.range(..=(after, JobId(u64::MAX))).count()
    }

    /// The earliest deadline that is later than `after`.
    pub(super) fn first_live_deadline(&self, after: Timestamp) -> Option<Timestamp> {
        self.by_deadline.range((after, JobId(u64::MAX))..).next().map(|(deadline, _)| *deadline)
    }

    /// The most urgent jobs whose deadline is later than `after`, with their effective deadlines.
    pub(super) fn window(&self, rows: usize, after: Timestamp) -> Vec<(Timestamp, Job)> {
        let live = self.by_urgency.iter().filter(|(_, waiting)| waiting.job.deadline > after);
        live.take(rows).map(|((effective, _), waiting)| (*effective, waiting.job)).collect()
    }

    /// Rows of the interactive class.
    pub(super) fn interactive(&self) -> usize {
        self.interactive
    }

    /// Tokens of a row, on average and rounded up; 0 for images.
    pub(super) fn mean_tokens(&self) -> u32 {
        u32::try_from(self.tokens.div_ceil(self.len().max(1))).unwrap_or(u32::MAX)
    }

    /// Tokens of the longest waiting row; 0 for images.
    pub(super) fn longest(&self) -> u32 {
        self.by_length.last_key_value().map_or(0, |(tokens, _)| *tokens)
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use crate::modality::Modality;

    fn queue() -> Queue {
        let mut queue = Queue::default();
        let (modality, class, deadline) = (Modality::Text, Class::Interactive, Timestamp::MAX);
        queue.push(
            Timestamp::default(),
            deadline,
            Job { id: JobId(1), modality, tokens: 5, class, deadline },
        );
        queue
    }

    #[test]
    #[should_panic(expected = "3 tokens of no job")]
    fn tokens_that_are_miscounted_are_noticed() {
        let mut queue = queue();
        queue.tokens += 3;
        queue.pop();
    }

    #[test]
    #[should_panic(expected = "1 of 0 jobs are interactive")]
    fn jobs_that_are_miscounted_are_noticed() {
        let mut queue = queue();
        queue.interactive += 1;
        queue.pop();
    }

    #[test]
    #[should_panic(expected = "jobs by deadline, by arrival and by id, where 0 wait")]
    fn a_job_that_stays_in_an_order_is_noticed() {
        let mut queue = queue();
        queue.by_arrival.insert((Timestamp::MAX, JobId(1)));
        queue.pop();
    }
}
