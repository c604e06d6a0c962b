//! What is wrong, in OpenAI's words: a status, and an error object with `message`, `type`, `param` and `code`.

use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admission::{Fault, NoEntry, Refusal};
use crate::code::Code;
use crate::pipeline::error::{self, Error, InputError};

/// A call that failed as a whole.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    status: StatusCode,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
}

/// The body of every answer that is an error.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorObject,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ErrorObject {
    /// For a person.
    message: String,
    r#type: &'static str,
    /// The part of the request that is at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

/// The part of a request that is at fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// As the pipeline knows it, and what the request calls its inputs.
    Of(error::Place, &'a str),
    Named(&'a str),
    None,
}

impl Place<'_> {
    fn param(self) -> Option<String> {
        match self {
            Place::Of(error::Place::Inputs, inputs) => Some(inputs.to_owned()),
            Place::Of(error::Place::Input(index, _), inputs) => Some(format!("{inputs}[{index}]")),
            Place::Of(error::Place::Query(_), _) => Some("query".to_owned()),
            Place::Of(place, _) => Some(place.to_string()),
            Place::Named(name) => Some(name.to_owned()),
            Place::None => None,
        }
    }
}

/// For retries without a hint of their own.
const LATER: Duration = Duration::from_secs(1);

impl Problem {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Problem {
        Problem { code, status, message: message.into(), param: None, retry_after: None }
    }

    pub(super) fn invalid(place: Place<'_>, message: impl ToString) -> Problem {
        let param = place.param();
        let message = match &param {
            Some(param) => format!("{param}: {}", message.to_string()),
            None => message.to_string(),
        };
        Problem { param, ..Problem::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message) }
    }

    /// `inputs` is what the request calls its inputs.
    pub(super) fn of(error: &Error, inputs: &str) -> Problem {
        match error {
            Error::Invalid(InputError { place, message }) => {
                Problem::invalid(Place::Of(*place, inputs), message)
            }
            Error::Refused(refusal) => Problem::refused(refusal),
            _ => Problem::of_code(error.code(), error.told()),
        }
    }

    /// What the codes of this server are in HTTP.
    fn of_code(code: Code, message: String) -> Problem {
        let (status, retry_after) = match code {
            Code::NotFound => (StatusCode::NOT_FOUND, None),
            Code::FailedPrecondition => (StatusCode::BAD_REQUEST, None),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(LATER)),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, None),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Problem { retry_after, ..Problem::new(status, code, message) }
    }

    pub(super) fn no_entry(no: &NoEntry) -> Problem {
        match no {
            NoEntry::Unknown(unknown) => {
                Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, unknown.to_string())
            }
            NoEntry::Refused(refusal) => Problem::refused(refusal),
        }
    }

    pub(super) fn refused(refusal: &Refusal) -> Problem {
        let retry_after = Some(refusal.retry_after);
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, refusal.to_string());
        Problem { retry_after, ..problem }
    }

    pub(super) fn fault<E: std::fmt::Display>(fault: &Fault<E>) -> Problem {
        match fault {
            Fault::Refused(refusal) => Problem::refused(refusal),
            Fault::TooLate => Problem::of_code(Code::DeadlineExceeded, fault.to_string()),
            Fault::Stopping => Problem::of_code(Code::Unavailable, fault.to_string()),
            Fault::Broken(error) => {
                Problem::invalid(Place::None, format!("the body did not arrive: {error}"))
            }
        }
    }

    pub(super) fn too_large(message: String) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::OutOfRange, message)
    }

    pub(super) fn unsupported(message: &str) -> Problem {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message)
    }

    pub(super) fn no_such_model(name: &str, served: &str) -> Problem {
        let message = format!("the model {name:?} is not served here; {served:?} is");
        let problem = Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message);
        Problem { param: Some("model".to_owned()), ..problem }
    }

    pub(super) fn no_such_path() -> Problem {
        let message = "there is no such path; /openapi.json has those that there are";
        Problem::new(StatusCode::NOT_FOUND, Code::Unimplemented, message)
    }

    pub(super) fn method_not_allowed() -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, "this path takes another method")
    }

    pub(super) fn internal(cause: String) -> Problem {
        tracing::error!(cause, "internal error");
        Problem::of(&Error::Internal(cause), "")
    }

    pub(super) fn response(self) -> Response<Body> {
        let object = ErrorObject {
            r#type: match self.status {
                StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
                StatusCode::UNAUTHORIZED => "authentication_error",
                status if status.is_client_error() => "invalid_request_error",
                _ => "server_error",
            },
            code: match self.status {
                StatusCode::NOT_FOUND if self.param.is_some() => Some("model_not_found"),
                StatusCode::TOO_MANY_REQUESTS => Some("rate_limit_exceeded"),
                StatusCode::UNAUTHORIZED => Some("invalid_api_key"),
                _ => None,
            },
            message: self.message,
            param: self.param,
        };
        let body = serde_json::to_vec(&ErrorBody { error: object }).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, of which none would be too few; the other is what OpenAI's libraries read first.
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs_f64().ceil() as u64));
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert("retry-after-ms", HeaderValue::from(millis));
        }
        response
    }
}

impl ErrorObject {
    /// Of one input, where `inputs` is what the request calls its inputs.
    pub(super) fn of(error: &InputError, inputs: &str) -> ErrorObject {
        ErrorObject {
            message: error.message.clone(),
            r#type: "invalid_request_error",
            param: Place::Of(error.place, inputs).param(),
            code: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.response()
    }
}
