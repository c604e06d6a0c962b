//! What a repository of the hub is called.

use std::fmt;
use std::str::FromStr;

use hf_hub::{Repo, RepoType};

use super::choice::Purpose;

/// What the hub calls its default branch.
const MAIN: &str = "main";

/// A repository of the hub at one of its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `ORG/NAME`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    pub(super) fn repo(&self, purpose: Purpose<'_>, revision: &str) -> Repo {
        let kind = match purpose {
            Purpose::Model { .. } => RepoType::Model,
            Purpose::Data { .. } => RepoType::Dataset,
        };
        Repo::with_revision(self.id.clone(), kind, revision.to_owned())
    }
}

/// `ORG/NAME` or `ORG/NAME@REVISION`.
impl FromStr for Repository {
    type Err = ();

    fn from_str(text: &str) -> Result<Repository, ()> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let word = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        let (org, name) = id.split_once('/').ok_or(())?;
        let valid = word(org) && word(name) && revision.split('/').all(word);
        valid.then(|| Repository { id: id.to_owned(), revision: revision.to_owned() }).ok_or(())
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}
