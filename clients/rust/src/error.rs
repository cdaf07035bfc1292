//! What a failed call gives, read from the google.rpc.Status that the router attaches.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::v1::{CallReport, ErrorReason};

const DOMAIN: &str = "trunkline";

/// One wrong field of a request: its path, such as `messages[0].role`, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The field's path.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// One spent quota: whose it is and what was reached.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct QuotaViolation {
    /// Whose it is.
    pub subject: String,
    /// What was reached.
    pub description: String,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", self.label(), self.message())]
pub struct Error(#[source] Box<Failure>);

/// What is known of the failure, with gRPC's own status.
#[derive(Debug)]
struct Failure {
    status: Status,
    reason: ErrorReason,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
    field_violations: Vec<FieldViolation>,
    quota_violations: Vec<QuotaViolation>,
    report: Option<CallReport>,
    request_id: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.status, f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.status.source()
    }
}

impl Error {
    /// gRPC's code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.status.code()
    }

    /// The router's own reason. Unspecified when the failure carries none: then the router did
    /// not answer, or something between did.
    #[must_use]
    pub fn reason(&self) -> ErrorReason {
        self.0.reason
    }

    /// The failure in words, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.0.status.message()
    }

    /// The reason's particulars.
    #[must_use]
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The pause that the router asks for, if it named one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The wrong fields of the request.
    #[must_use]
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// The quotas that are spent.
    #[must_use]
    pub fn quota_violations(&self) -> &[QuotaViolation] {
        &self.0.quota_violations
    }

    /// What the call did and cost before it failed. None when nothing was sent to a provider.
    #[must_use]
    pub fn report(&self) -> Option<&CallReport> {
        self.0.report.as_ref()
    }

    /// The call's id in the router's log. Empty when it is not known.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The failure as gRPC told it.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    /// Makes an error of a status that gRPC returned, for calls made on [`crate::Client::stub`].
    #[must_use]
    pub fn from_status(status: Status) -> Self {
        Self::of_call(status, "")
    }

    pub(crate) fn of_call(status: Status, request_id: &str) -> Self {
        let mut failure = Failure {
            reason: ErrorReason::Unspecified,
            metadata: HashMap::new(),
            retry_after: None,
            field_violations: Vec::new(),
            quota_violations: Vec::new(),
            report: None,
            request_id: request_id.to_owned(),
            status,
        };
        for detail in details(&failure.status) {
            failure.take(&detail);
        }
        if failure.request_id.is_empty()
            && let Some(id) = failure.metadata.get("request_id")
        {
            failure.request_id.clone_from(id);
        }
        if let Some(report) = &failure.report
            && !report.id.is_empty()
        {
            failure.request_id.clone_from(&report.id);
        }
        Self(Box::new(failure))
    }

    fn label(&self) -> String {
        match self.reason() {
            ErrorReason::Unspecified => format!("{:?}", self.code()),
            reason => reason
                .as_str_name()
                .trim_start_matches("ERROR_REASON_")
                .to_owned(),
        }
    }
}

impl Failure {
    /// Reads one detail; those that are not known, or garbled, are passed over.
    fn take(&mut self, detail: &prost_types::Any) {
        if let Some(info) = unpacked::<pb::ErrorInfo>(detail, "google.rpc.ErrorInfo") {
            if info.domain == DOMAIN
                && let Some(reason) = ErrorReason::from_str_name(&info.reason)
            {
                self.reason = reason;
                self.metadata = info.metadata;
            }
        } else if let Some(info) = unpacked::<pb::RetryInfo>(detail, "google.rpc.RetryInfo") {
            self.retry_after = info.retry_delay.and_then(|delay| delay.try_into().ok());
        } else if let Some(bad) = unpacked::<pb::BadRequest>(detail, "google.rpc.BadRequest") {
            let read = bad.field_violations.into_iter().map(|each| FieldViolation {
                field: each.field,
                description: each.description,
            });
            self.field_violations.extend(read);
        } else if let Some(spent) = unpacked::<pb::QuotaFailure>(detail, "google.rpc.QuotaFailure")
        {
            let read = spent.violations.into_iter().map(|each| QuotaViolation {
                subject: each.subject,
                description: each.description,
            });
            self.quota_violations.extend(read);
        } else if let Some(report) = unpacked::<CallReport>(detail, "trunkline.v1.CallReport") {
            self.report = Some(report);
        }
    }
}

/// The details of the attached status, none when there is none that can be believed.
fn details(status: &Status) -> Vec<prost_types::Any> {
    match pb::Status::decode(status.details()) {
        // A status that contradicts the call's own code was meant for another call.
        Ok(attached) if attached.code == status.code() as i32 => attached.details,
        _ => Vec::new(),
    }
}

fn unpacked<M: Message + Default>(detail: &prost_types::Any, name: &str) -> Option<M> {
    let (_, told) = detail.type_url.rsplit_once('/')?;
    (told == name)
        .then(|| M::decode(detail.value.as_slice()).ok())
        .flatten()
}
