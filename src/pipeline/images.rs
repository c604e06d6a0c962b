//! Images of a request: into the line if they can be done in time, and out of it as rows.

use futures_util::future::try_join_all;

use super::error::{Error, InputError};
use super::{ImageSource, Pipeline};
use crate::admission::Deadline;
use crate::clip::row::ImageRow;
use crate::modality::Modality;

/// What an image does where it is predicted to be done too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is refused, with all of its request.
    None,
    /// It waits, as those of streams: who sends them is slowed down, and told of each that is late.
    UntilDeadline,
}

impl Pipeline {
    /// Puts images in line, or refuses all of them, at once. Each comes with its number among the inputs of the
    /// request. The future gives one result per image, in order.
    pub(super) fn images(
        &self,
        sources: impl IntoIterator<Item = (usize, ImageSource)>,
        deadline: Deadline,
        patience: Patience,
    ) -> Result<impl Future<Output = Result<Vec<Result<ImageRow, InputError>>, Error>>, Error> {
        let line = &self.line;
        let (mut images, mut slots) = (Vec::new(), Vec::new());
        for (input, source) in sources {
            slots.push(line.image(input, source).map(|image| images.push(image)));
        }
        let pending = match patience {
            Patience::None => {
                let done_by = deadline.done_by.saturating_sub(line.completion(&images, deadline));
                self.admissible(Modality::Image, images.len(), Deadline { done_by, ..deadline })?;
                line.admit(images, deadline)?
            }
            Patience::UntilDeadline => line.join(images, deadline),
        };
        Ok(async move {
            let pending = pending.into_iter().map(|pending| async move {
                match pending.row().await {
                    Ok(row) => Ok(Ok(row)),
                    Err(Error::Invalid(error)) => Ok(Err(error)),
                    Err(error) => Err(error),
                }
            });
            let mut rows = try_join_all(pending).await?.into_iter();
            let mut row = || rows.next().unwrap_or_else(|| unreachable!("one result for each image in line"));
            let images: Vec<_> = slots.into_iter().map(|slot| slot.and_then(|()| row())).collect();
            let errors = images.iter().filter(|image| image.is_err()).count();
            self.metrics.input_errors(Some(Modality::Image)).increment(errors as u64);
            Ok(images)
        })
    }

    /// The only image of a message.
    pub(super) async fn image(&self, source: ImageSource, deadline: Deadline) -> Result<ImageRow, Error> {
        let images = self.images([(0, source)], deadline, Patience::UntilDeadline)?.await?;
        let image = images.into_iter().next().unwrap_or_else(|| unreachable!("one image has one result"));
        image.map_err(Error::Invalid)
    }
}
