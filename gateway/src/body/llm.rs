//! Bodies of LLM chutes.

use protocol::directory::{Chute, Cord};
use protocol::usage::Kind;
use serde::de::IgnoredAny;

use super::fields::Fields;
use super::messages::{Arguments, Messages, with_null_arguments};
use super::prompt::TextBytes;
use super::{Head, Prepared, typed};
use crate::refusal::Refusal;

/// Suffix of a model's name that asks for its thinking mode.
pub(super) const THINKING: &str = ":THINKING";

/// Names the model, asks for usage, and adds what engines expect and clients leave out.
pub(super) fn prepare(head: Head<'_>, chute: &Chute, cord: &Cord) -> Result<Prepared, Refusal> {
    let Head { mut fields, thinking, stream, .. } = head;
    let prompt: TextBytes = typed(&fields, "prompt", "a string or a list")?.unwrap_or_default();
    let messages: Messages = typed(&fields, "messages", "a list of messages")?.unwrap_or_default();
    check_arguments(&mut fields, messages.arguments)?;
    let hide_usage = stream && ask_for_usage(&mut fields)?;
    if thinking {
        ask_for_thinking(&mut fields)?;
    }
    let tools: Option<Vec<IgnoredAny>> = typed(&fields, "tools", "a list")?;
    if tools.is_some_and(|tools| !tools.is_empty()) && fields.get("tool_choice").is_none() {
        fields.set("tool_choice", &"auto");
    }
    if fields.get("logprobs").is_some_and(|flag| flag.get() == "true") {
        let asked: Option<i64> = typed(&fields, "top_logprobs", "an integer")?;
        fields.set("top_logprobs", &asked.unwrap_or(1).max(1));
    }
    fields.set("model", &chute.name);
    Ok(Prepared {
        body: fields.to_json().into(),
        stream: cord.stream,
        hide_usage,
        prompt_estimate: TextBytes(prompt.0.saturating_add(messages.text.0)).tokens(),
        steps: 0,
        kind: kind(cord),
    })
}

/// Refuses arguments of tool calls that are no JSON; an empty text, which clients send for "none", becomes `null`.
fn check_arguments(fields: &mut Fields<'_>, arguments: Arguments) -> Result<(), Refusal> {
    match arguments {
        Arguments::Good => Ok(()),
        Arguments::Bad => Err(Refusal::BadRequest("Invalid tool_calls.function.arguments value, expected JSON".into())),
        Arguments::Empty => {
            let list = fields.get("messages").map_or("[]", |messages| messages.get());
            let messages = with_null_arguments(list)
                .map_err(|_| Refusal::BadRequest("messages must be a list of messages".into()))?;
            fields.set("messages", &messages);
            Ok(())
        }
    }
}

/// Makes the stream end with a usage chunk; whether the client had not asked for it.
fn ask_for_usage(fields: &mut Fields<'_>) -> Result<bool, Refusal> {
    let mut options: Fields<'_> = typed(fields, "stream_options", "an object")?.unwrap_or_default();
    let asked: Option<bool> = typed(&options, "include_usage", "a boolean")?;
    options.set("include_usage", &true);
    let options = options.to_raw();
    fields.set("stream_options", &options);
    Ok(asked != Some(true))
}

fn ask_for_thinking(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    let mut template: Fields<'_> = typed(fields, "chat_template_kwargs", "an object")?.unwrap_or_default();
    template.set("thinking", &true);
    template.set("enable_thinking", &true);
    let template = template.to_raw();
    fields.set("chat_template_kwargs", &template);
    Ok(())
}

/// Only chat and completions have tokens to count.
fn kind(cord: &Cord) -> Kind {
    let path = cord.public_path.as_deref().unwrap_or_default();
    if !path.starts_with("/v1/chat") && !path.starts_with("/v1/completion") {
        return Kind::Time;
    }
    if cord.stream { Kind::Stream } else { Kind::Complete }
}
