//! Why an operation, or one of its inputs, has no answer.

use std::fmt;
use std::time::Duration;

use crate::admission::{Admitted, Reason, Refusal};
use crate::batcher::JobError;
use crate::code::Code;
use crate::scheduler::Rejection;

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct InputError {
    pub place: Place,
    /// For a person.
    pub message: String,
}

/// The part of a request that an error is about. Edges have words of their own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All inputs: those of an embed, the images of a classify, the documents of a rank.
    Inputs,
    /// One of them, from 0.
    Input(usize, Part),
    /// What the inputs of a rank are compared with.
    Query(Part),
    Labels,
    Label(usize),
    Templates,
    Template(usize),
    /// The bytes of a template, alone and with the longest label in it.
    TemplateBytes(usize),
    LongestPrompt(usize),
    /// Labels x templates.
    Prompts,
    /// Images x predictions of each.
    Predictions,
    /// Bytes of the answer.
    Response,
    /// The weights of a linear head.
    Head,
    /// Of an edge.
    Field(&'static str),
}

/// Of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Text,
    Image,
    /// The file.
    Encoded,
    /// Raw RGB.
    Pixels,
    /// Numbers of a vector that the client has already.
    Embedding,
}

impl Place {
    /// Of the input that it is about.
    pub fn part(self) -> Part {
        match self {
            Place::Input(_, part) | Place::Query(part) => part,
            _ => Part::Whole,
        }
    }
}

impl InputError {
    pub fn new(place: Place, message: impl ToString) -> InputError {
        InputError { place, message: message.to_string() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Inputs => f.write_str("inputs"),
            Place::Input(index, part) => write!(f, "inputs[{index}]{part}"),
            Place::Query(part) => write!(f, "query{part}"),
            Place::Labels => f.write_str("labels"),
            Place::Label(index) => write!(f, "labels[{index}]"),
            Place::Templates => f.write_str("templates"),
            Place::Template(index) => write!(f, "templates[{index}]"),
            Place::TemplateBytes(index) => write!(f, "templates[{index}] bytes"),
            Place::LongestPrompt(index) => write!(f, "templates[{index}] with its longest label: bytes"),
            Place::Prompts => f.write_str("labels x templates"),
            Place::Predictions => f.write_str("images x top_k"),
            Place::Response => f.write_str("bytes of the answer"),
            Place::Head => f.write_str("head"),
            Place::Field(name) => f.write_str(name),
        }
    }
}

/// As it follows the name of an input that is an image or a text.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Whole => "",
            Part::Text => ".text",
            Part::Image => ".image",
            Part::Encoded => ".image.encoded",
            Part::Pixels => ".image.rgb.pixels",
            Part::Embedding => ".embedding",
        })
    }
}

/// Why a whole operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is wrong; repeating it gives the same answer.
    #[error("{0}")]
    Invalid(InputError),
    #[error("classifier: the server has none named {classifier:?}")]
    NotFound { classifier: String },
    /// What is asked for needs texts, and the model has images only.
    #[error(
        "the model has no text encoder: it embeds images, ranks images and vectors, and classifies by named linear \
         heads"
    )]
    NoTextEncoder,
    /// There is no room now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This server cannot serve now, another one may.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// A fault of ours; the cause is for the log, not for the client.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Error::Invalid(_) => Code::InvalidArgument,
            Error::NotFound { .. } => Code::NotFound,
            Error::NoTextEncoder => Code::FailedPrecondition,
            Error::Refused(_) => Code::ResourceExhausted,
            Error::Unavailable(_) => Code::Unavailable,
            Error::DeadlineExceeded => Code::DeadlineExceeded,
            Error::Internal(_) => Code::Internal,
        }
    }

    /// A metric label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => "not_found",
            Error::Invalid(_) | Error::NoTextEncoder => "invalid",
            Error::Refused(_) => "refused",
            Error::Unavailable(_) => "unavailable",
            Error::DeadlineExceeded => "expired",
            Error::Internal(_) => "failed",
        }
    }

    /// What a client is told: of a fault of ours not the cause, which is logged under the id of the request.
    pub fn told(&self) -> String {
        match self {
            Error::Internal(_) => "internal error; the server's log has the cause".to_owned(),
            _ => self.to_string(),
        }
    }

    /// Writes to the log what the client of `call` is not told.
    pub fn log(&self, call: &Admitted) {
        if let Error::Internal(cause) = self {
            let (request_id, key) = (call.request_id(), call.key_name());
            tracing::error!(request_id, key, cause, "internal error");
        }
    }

    pub fn refused(reason: Reason, retry_after: Duration) -> Error {
        Error::Refused(Refusal { reason, retry_after: retry_after.max(MIN_RETRY) })
    }
}

/// Shortest retry hint: less would only repeat the overload.
const MIN_RETRY: Duration = Duration::from_millis(50);

impl From<InputError> for Error {
    fn from(error: InputError) -> Error {
        Error::Invalid(error)
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Error {
        match rejection {
            Rejection::QueueFull { retry_after } => Error::refused(Reason::QueueFull, retry_after),
            Rejection::TooLate { retry_after } => Error::refused(Reason::Deadline, retry_after),
            Rejection::Starting => Error::Unavailable("the server is starting"),
            Rejection::Draining => Error::Unavailable("the server is shutting down"),
            Rejection::NoWorker => Error::Unavailable("every worker is lost"),
        }
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Error {
        match error {
            JobError::Rejected(rejection) => rejection.into(),
            JobError::Expired => Error::DeadlineExceeded,
            JobError::WorkerLost => Error::Unavailable("the worker was lost"),
            JobError::Failed(cause) => Error::Internal(cause),
        }
    }
}
