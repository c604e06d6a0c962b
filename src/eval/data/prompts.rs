//! What the text encoder reads for each class.

use std::collections::HashMap;
use std::path::Path;

use super::{lines, text};
use crate::eval::Error;

/// Where the name of the class goes.
const PLACE: &str = "{c}";

/// That of CLIP's authors (Radford et al. 2021, section 3.1.4).
pub(super) const DEFAULT: &str = "a photo of a {c}.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::eval) enum Prompts {
    /// Sentences with a place for the name.
    Shared(Vec<String>),
    /// Whole prompts, class by class.
    OfEach(Vec<Vec<String>>),
}

impl Prompts {
    pub(super) fn shared(templates: Vec<String>) -> Result<Prompts, Error> {
        if templates.is_empty() {
            return Err(Error::Other("there is no template".to_owned()));
        }
        match templates.iter().find(|template| !template.contains(PLACE)) {
            Some(template) => {
                Err(Error::Other(format!("the template {template:?} has no {PLACE} for the class")))
            }
            None => Ok(Prompts::Shared(templates)),
        }
    }

    /// Lines, or JSON.
    pub(in crate::eval) fn of_file(file: &Path, classes: &[String]) -> Result<Prompts, Error> {
        if file.extension().is_none_or(|extension| extension != "json") {
            return Prompts::shared(lines(file)?);
        }
        let unfit = |reason: &dyn std::fmt::Display| Error::Other(format!("{}: {reason}", file.display()));
        match serde_json::from_str(&text(file)?).map_err(|error| unfit(&error))? {
            Json::Templates(templates) => Prompts::shared(templates),
            Json::Prompts(mut prompts) => {
                let mut of = |class: &String| match prompts.remove(class) {
                    Some(prompts) if !prompts.is_empty() => Ok(prompts),
                    _ => Err(unfit(&format!("there is no prompt for {class:?}"))),
                };
                Ok(Prompts::OfEach(classes.iter().map(&mut of).collect::<Result<_, Error>>()?))
            }
        }
    }

    /// Prompts of each class, class by class.
    pub(in crate::eval) fn of_classes(&self, classes: &[String]) -> Vec<Vec<String>> {
        match self {
            Prompts::Shared(templates) => classes
                .iter()
                .map(|class| templates.iter().map(|template| template.replace(PLACE, class)).collect())
                .collect(),
            Prompts::OfEach(prompts) => prompts.clone(),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Json {
    Templates(Vec<String>),
    Prompts(HashMap<String, Vec<String>>),
}
