#![doc = include_str!("../README.md")]

mod assemble;
mod client;
mod connection;
mod error;
mod options;
mod retry;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trace;
mod transport;

pub use assemble::MessageAssembler;
pub use client::{Client, Stub};
pub use error::{Error, FieldViolation, QuotaViolation};
pub use options::{Builder, ConfigError, DEFAULT_TARGET, DEFAULT_TIMEOUT};
pub use stream::{Stream, Text};
pub use tls::Tls;

/// The contract's messages, as `proto/trunkline/v1` has them.
// Generated: the contract's comments are written for every language.
#[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
pub mod v1 {
    include!("gen/trunkline.v1.rs");
}

/// The control plane.
pub mod admin {
    /// The control plane's messages and services, as `proto/trunkline/admin/v1` has them.
    #[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
    pub mod v1 {
        include!("gen/trunkline.admin.v1.rs");
    }
}

/// A request with one user message.
#[must_use]
pub fn prompt(model: impl Into<String>, text: impl Into<String>) -> v1::GenerateRequest {
    v1::GenerateRequest {
        model: model.into(),
        messages: vec![user_message(text)],
        ..Default::default()
    }
}

/// What the user says.
#[must_use]
pub fn user_message(text: impl Into<String>) -> v1::Message {
    let kind = Some(v1::part::Kind::Text(text.into()));
    v1::Message {
        role: v1::Role::User.into(),
        parts: vec![v1::Part {
            kind,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The text parts of an answer's message, joined; reasoning and tool calls are left out.
#[must_use]
pub fn text_of(message: &v1::Message) -> String {
    let mut text = String::new();
    for part in &message.parts {
        if let Some(v1::part::Kind::Text(piece)) = &part.kind {
            text.push_str(piece);
        }
    }
    text
}
