//! How soon a result is wanted when its deadline leaves room.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Work in the background, such as indexing a collection: it gives way to interactive work.
    Bulk,
}
