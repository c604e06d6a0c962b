//! Images of a request: into the line if they can be done in time, and out of it as rows.

use futures_util::future::try_join_all;

use super::error::{Error, InputError};
use super::{Deadline, ImageSource, Pipeline};
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
    /// Puts images in line, or refuses all of them, at once. The future gives one result per image, in order; `path`
    /// names an image in the request by its position, such as `images[2]`.
    pub(super) fn images(
        &self,
        sources: Vec<ImageSource>,
        path: impl Fn(usize) -> String,
        deadline: Deadline,
        patience: Patience,
    ) -> Result<impl Future<Output = Result<Vec<Result<ImageRow, InputError>>, Error>>, Error> {
        let line = &self.line;
        let mut images = Vec::with_capacity(sources.len());
        let mut slots = Vec::with_capacity(sources.len());
        for (index, source) in sources.into_iter().enumerate() {
            slots.push(line.image(&path(index), source).map(|image| images.push(image)));
        }
        let pending = match patience {
            Patience::None => {
                let start_by = deadline.start_by.saturating_sub(line.completion(&images, deadline));
                self.admissible(Modality::Image, images.len(), Deadline { start_by, ..deadline })?;
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

    /// The image of a stream that `path` names.
    pub(super) async fn image(
        &self,
        source: ImageSource,
        path: &str,
        deadline: Deadline,
    ) -> Result<ImageRow, Error> {
        let path = |_| path.to_owned();
        let images = self.images(vec![source], path, deadline, Patience::UntilDeadline)?.await?;
        let image = images.into_iter().next().unwrap_or_else(|| unreachable!("one image has one result"));
        image.map_err(Error::Invalid)
    }
}
