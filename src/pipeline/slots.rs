//! Which inputs of a request run, so that the results find their places again.

use super::error::{Error, InputError};

/// For each input what is to be known of it beside its row, or what is wrong with it.
pub(super) struct Slots<T>(Vec<Result<T, InputError>>);

impl<T> Slots<T> {
    /// Splits each good input into what stays here and what runs.
    pub(super) fn split<I, R>(
        inputs: Vec<Result<I, InputError>>,
        mut split: impl FnMut(I) -> (T, R),
    ) -> (Slots<T>, Vec<R>) {
        let mut rows = Vec::with_capacity(inputs.len());
        let slots = inputs.into_iter().map(|input| {
            input.map(|input| {
                let (kept, row) = split(input);
                rows.push(row);
                kept
            })
        });
        let slots = Slots(slots.collect());
        (slots, rows)
    }

    /// `results` has one for each row, in order.
    pub(super) fn join<R, U>(
        self,
        results: impl IntoIterator<Item = R>,
        mut join: impl FnMut(T, R) -> Result<U, Error>,
    ) -> Result<Vec<Result<U, InputError>>, Error> {
        let mut results = results.into_iter();
        let place = |slot: Result<T, InputError>| {
            let kept = match slot {
                Ok(kept) => kept,
                Err(error) => return Ok(Err(error)),
            };
            let result = results.next().ok_or_else(|| Error::Internal("a row was lost".into()))?;
            join(kept, result).map(Ok)
        };
        self.0.into_iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Place;
    use super::*;

    #[test]
    fn results_find_their_places() {
        let wrong = || InputError::new(Place::Inputs, "wrong");
        let (slots, rows) = Slots::split(vec![Ok((1, 'a')), Err(wrong()), Ok((2, 'b'))], |input| input);
        assert_eq!(rows, ['a', 'b']);
        let joined = slots.join(["A", "B"], |kept, result| Ok((kept, result))).unwrap();
        assert_eq!(joined, [Ok((1, "A")), Err(wrong()), Ok((2, "B"))]);
        let (slots, _) = Slots::split(vec![Ok((1, 'a'))], |input| input);
        assert!(slots.join([(); 0], |_, ()| Ok(())).is_err());
    }
}
