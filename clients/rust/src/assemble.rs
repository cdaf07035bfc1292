//! Joins the deltas of a streamed answer into the message that Generate would have returned.

use std::collections::BTreeMap;

use crate::v1::stream_delta::Kind as Delta;
use crate::v1::{Citation, Message, Part, Reasoning, Role, Source, StreamDelta, ToolCall, part};

/// Builds a message from deltas, which may come for several parts in turn.
#[derive(Clone, Debug, Default)]
pub struct MessageAssembler {
    parts: BTreeMap<i32, Part>,
    sources: Vec<Source>,
    citations: Vec<Citation>,
}

impl MessageAssembler {
    /// Takes the next delta. One of a kind that is not known is passed over.
    pub fn add(&mut self, delta: StreamDelta) {
        let Some(kind) = delta.kind else { return };
        match kind {
            Delta::Source(source) => self.sources.push(source),
            Delta::Citation(citation) => self.citations.push(citation),
            Delta::Text(text) => {
                let empty = || part::Kind::Text(String::new());
                if let part::Kind::Text(grown) = self.kind(delta.part_index, empty) {
                    grown.push_str(&text);
                }
            }
            Delta::Reasoning(text) => {
                let empty = || part::Kind::Reasoning(Reasoning::default());
                if let part::Kind::Reasoning(grown) = self.kind(delta.part_index, empty) {
                    grown.text.push_str(&text);
                }
            }
            Delta::ToolCall(piece) => {
                let empty = || part::Kind::ToolCall(ToolCall::default());
                if let part::Kind::ToolCall(grown) = self.kind(delta.part_index, empty) {
                    if grown.id.is_empty() {
                        grown.id = piece.id;
                    }
                    if grown.name.is_empty() {
                        grown.name = piece.name;
                    }
                    grown.arguments_json.push_str(&piece.arguments_json);
                }
            }
            Delta::Signature(signature) => {
                self.parts.entry(delta.part_index).or_default().signature = Some(signature);
            }
            Delta::Part(whole) => {
                let known = self.parts.entry(delta.part_index).or_default();
                known.kind = whole.kind.or(known.kind.take());
                known.signature = whole.signature.or(known.signature.take());
                known.cache_breakpoint |= whole.cache_breakpoint;
            }
        }
    }

    /// The assistant's message so far, its parts in the order of their index.
    #[must_use]
    pub fn message(&self) -> Message {
        Message {
            role: Role::Assistant.into(),
            parts: self.parts.values().cloned().collect(),
            sources: self.sources.clone(),
            citations: self.citations.clone(),
            ..Default::default()
        }
    }

    fn kind(&mut self, index: i32, empty: impl FnOnce() -> part::Kind) -> &mut part::Kind {
        self.parts
            .entry(index)
            .or_default()
            .kind
            .get_or_insert_with(empty)
    }
}
