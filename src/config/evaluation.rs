//! What `clipd eval` is to do: its flags, and the command lines of the servers that it starts.

use std::path::PathBuf;

use super::eval::{Against, EvalCommand, EvalFlags, RetrievalFlags, ZeroshotFlags};
use super::hub::hub_access;
use super::own_server::OwnServer;
use crate::model::hub::Access;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Task {
    Zeroshot { classes: Option<PathBuf>, templates: Option<PathBuf>, classifier: Option<String> },
    Retrieval { recall_k: Vec<u32> },
}

/// A command line without contradictions.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub task: Task,
    pub flags: EvalFlags,
    pub access: Access,
    /// Of the server to start; `None`: one runs at `--addr`.
    pub own: Option<Vec<String>>,
    /// Of the server to start for `--against`.
    pub other: Option<Vec<String>>,
}

impl Evaluation {
    pub fn of(command: &EvalCommand) -> Result<Evaluation, Vec<String>> {
        let (task, flags) = match command {
            EvalCommand::Zeroshot(flags) => {
                let ZeroshotFlags { classes, templates, classifier, common } = (**flags).clone();
                (Task::Zeroshot { classes, templates, classifier }, common)
            }
            EvalCommand::Retrieval(flags) => {
                let RetrievalFlags { recall_k, common } = (**flags).clone();
                (Task::Retrieval { recall_k }, common)
            }
        };
        let access = hub_access(&flags.hub).map_err(|problem| vec![problem])?;
        let classifier = matches!(task, Task::Zeroshot { classifier: Some(_), .. });
        match flags.against {
            Some(Against::Templates(_)) if classifier || matches!(task, Task::Retrieval { .. }) => {
                return Err(vec!["--against: only classes have templates".to_owned()]);
            }
            Some(Against::Record(_)) if classifier => {
                return Err(vec!["--against: a classifier of the server has no record".to_owned()]);
            }
            _ => {}
        }
        let other = match flags.against {
            Some(Against::Precision(precision)) => Some(with_precision(&flags.serve, precision)),
            _ => None,
        };
        let started = |serve: &[String]| OwnServer::parse(serve).map(|server| server.arguments);
        let own = if flags.addr.is_none() { Some(started(&flags.serve)?) } else { None };
        let other = other.as_deref().map(started).transpose()?;
        Ok(Evaluation { task, flags, access, own, other })
    }
}

/// The same flags with another `--precision`.
fn with_precision(serve: &[String], precision: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut given = serve.iter();
    while let Some(flag) = given.next() {
        if flag == "--precision" {
            given.next();
        } else if !flag.starts_with("--precision=") {
            flags.push(flag.clone());
        }
    }
    flags.push(format!("--precision={precision}"));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_precision_takes_the_place_of_the_first() {
        let serve =
            ["--device=cpu", "--precision", "int8", "--precision=bf16", "--threads=1"].map(str::to_owned);
        assert_eq!(with_precision(&serve, "fp32"), ["--device=cpu", "--threads=1", "--precision=fp32"]);
    }
}
