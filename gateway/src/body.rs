//! Turns a client's body into what an instance is sent.

use bytes::Bytes;
use protocol::directory::{Chute, Cord, Template};
use protocol::usage::Kind;

use crate::refusal::Refusal;
use fields::Fields;

mod depth;
mod embed;
mod fields;
mod image;
mod llm;
mod messages;
pub mod openai_image;
mod plain;
mod prompt;

/// What is sent to an instance, and what is known from the body beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// JSON, not sealed yet.
    pub body: Bytes,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// Whether the usage chunk was asked for by us and not by the client, who must not see it.
    pub hide_usage: bool,
    /// Estimated prompt tokens; 0 where there is no prompt.
    pub prompt_estimate: u64,
    /// Diffusion steps; 0 elsewhere.
    pub steps: u64,
    /// Which numbers the call is measured by.
    pub kind: Kind,
}

/// Whose words a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The chute's own.
    Own,
    /// Those of OpenAI's `images.generate`.
    OpenAiImage,
}

/// A client's body, read far enough to find the chute and the cord.
#[derive(Debug)]
pub enum Body<'a> {
    /// For a façade's kind of chute: an object, read one level deep; none where no body came.
    Templated(Template, Option<Head<'a>>),
    /// For a chute of its own kind: any JSON.
    Plain(&'a [u8]),
}

/// The top level of an object and the fields that decide where it goes.
#[derive(Debug)]
pub struct Head<'a> {
    fields: Fields<'a>,
    model: Option<String>,
    thinking: bool,
    stream: bool,
}

impl Form {
    /// The form in which a façade of this template is asked at this path.
    #[must_use]
    pub fn of(template: Template, path: &str) -> Self {
        if template == Template::Diffusion && path == openai_image::PATH { Self::OpenAiImage } else { Self::Own }
    }

    /// The path of the chute's cord for a request to this path.
    #[must_use]
    pub fn cord_path(self, path: &str) -> &str {
        match self {
            Self::Own => path,
            Self::OpenAiImage => openai_image::GENERATE,
        }
    }
}

impl<'a> Body<'a> {
    /// Reads the body for a chute of this template. `thinking` says whether a header asks for thinking.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when it is not JSON or nested too deep, or for a template not an object of the right types.
    pub fn read(template: Option<Template>, raw: &'a [u8], thinking: bool) -> Result<Self, Refusal> {
        depth::check(raw)?;
        let Some(template) = template else {
            return plain::check(raw).map(|()| Self::Plain(raw));
        };
        let head = if raw.is_empty() { None } else { Some(Head::read(template, raw, thinking)?) };
        Ok(Self::Templated(template, head))
    }

    /// The same request in the chute's own words.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when it asks for what no chute gives.
    pub fn translated(mut self, form: Form) -> Result<Self, Refusal> {
        if let (Form::OpenAiImage, Self::Templated(_, Some(head))) = (form, &mut self) {
            openai_image::translate(&mut head.fields)?;
        }
        Ok(self)
    }

    /// The model asked for, without a `:THINKING` suffix.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Templated(_, Some(head)) => head.model.as_deref(),
            Self::Templated(_, None) | Self::Plain(_) => None,
        }
    }

    /// The texts that make two requests ask the same, whatever else they say.
    #[must_use]
    pub fn asked(&self) -> Vec<&[u8]> {
        let (head, names) = match self {
            Self::Plain(raw) => return vec![raw],
            Self::Templated(_, None) => return vec![],
            Self::Templated(Template::Vllm, Some(head)) => (head, &["messages", "prompt"][..]),
            Self::Templated(Template::Embedding, Some(head)) => (head, &["input"][..]),
            Self::Templated(Template::Diffusion, Some(head)) => (head, &["prompt", "negative_prompt", "image_b64"][..]),
        };
        let text = |name: &&str| head.fields.get(name).map_or(&b""[..], |value| value.get().as_bytes());
        names.iter().map(text).collect()
    }

    /// Whether the body asks for a stream.
    #[must_use]
    pub fn stream(&self) -> bool {
        match self {
            Self::Templated(_, Some(head)) => head.stream,
            Self::Templated(_, None) | Self::Plain(_) => false,
        }
    }

    /// What an instance of `chute` is sent for `cord`, by the rules of the chute's template.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when the template does not take this body.
    pub fn prepare(self, chute: &Chute, cord: &Cord) -> Result<Prepared, Refusal> {
        match self {
            Self::Plain(raw) => Ok(plain::prepare(raw, cord)),
            Self::Templated(_, None) if cord.public_method == "GET" => Ok(plain::prepare(b"", cord)),
            Self::Templated(_, None) => Err(Refusal::BadRequest("invalid request JSON payload: it is empty".into())),
            Self::Templated(Template::Vllm, Some(head)) => llm::prepare(head, chute, cord),
            Self::Templated(Template::Embedding, Some(head)) => embed::prepare(head, chute, cord),
            Self::Templated(Template::Diffusion, Some(head)) => image::prepare(head, chute, cord),
        }
    }
}

impl<'a> Head<'a> {
    fn read(template: Template, raw: &'a [u8], thinking: bool) -> Result<Self, Refusal> {
        let fields: Fields<'a> = serde_json::from_slice(raw).map_err(|error| not_json(&error))?;
        let mut model: Option<String> = typed(&fields, "model", "a string")?;
        let mut thinking = thinking;
        if template == Template::Vllm
            && let Some(plain) = model.as_deref().and_then(|name| name.strip_suffix(llm::THINKING))
        {
            model = Some(plain.to_owned());
            thinking = true;
        }
        let stream = template == Template::Vllm && typed(&fields, "stream", "a boolean")?.unwrap_or(false);
        Ok(Self { fields, model, thinking, stream })
    }
}

/// A field of one type, if it is there.
fn typed<'b, T: serde::Deserialize<'b>>(fields: &'b Fields<'_>, name: &str, what: &str) -> Result<Option<T>, Refusal> {
    fields.read(name).map_err(|_| Refusal::BadRequest(format!("{name} must be {what}")))
}

/// What a client reads whose body is no JSON; the position helps, the text itself is not repeated.
fn not_json(error: &serde_json::Error) -> Refusal {
    Refusal::BadRequest(format!("invalid request JSON payload: {error}"))
}

#[cfg(test)]
mod tests;
