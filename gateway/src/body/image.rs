//! Bodies of diffusion chutes: a strict schema, and a bound on steps.

use std::fmt;

use protocol::directory::{Chute, Cord};
use protocol::usage::Kind;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::fields::Fields;
use super::{Head, Prepared, typed};
use crate::refusal::Refusal;

/// What clients send along to choose the chute; an instance is not told.
const ROUTING: [&str; 3] = ["cord", "method", "model"];
/// Every field there is.
const KNOWN: [&str; 9] = [
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "img_guidance_scale",
    "image_b64",
];
/// Letters of an unknown field's name that are told.
const SHOWN: usize = 64;
/// Steps of a call that does not say.
const DEFAULT_STEPS: u64 = 25;
/// Most steps an image is given.
const MOST_STEPS: u64 = 50;
/// The model that gets fewer, and how many.
const SLOW_MODEL: (&str, u64) = ("FLUX.1-dev", 30);

/// A text whose content is of no interest, so that a list of them takes no room.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;

        impl Visitor<'_> for AnyText {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }

        deserializer.deserialize_str(AnyText)
    }
}

/// Checks the body, drops what chose the chute and bounds the steps.
pub(super) fn prepare(head: Head<'_>, chute: &Chute, cord: &Cord) -> Result<Prepared, Refusal> {
    let Head { mut fields, .. } = head;
    ROUTING.into_iter().for_each(|name| fields.remove(name));
    if let Some(unknown) = fields.names().find(|name| !KNOWN.contains(name)) {
        let shown: String = unknown.chars().take(SHOWN).collect();
        return Err(Refusal::BadRequest(format!("{shown} must be left out")));
    }
    check(&fields)?;
    let most = if chute.name.ends_with(SLOW_MODEL.0) { SLOW_MODEL.1 } else { MOST_STEPS };
    let asked = typed(&fields, "num_inference_steps", "an integer")?.unwrap_or(DEFAULT_STEPS);
    if asked == 0 {
        return Err(Refusal::BadRequest("num_inference_steps must be at least 1".into()));
    }
    let steps = asked.min(most);
    // Said even where the client did not: what is recorded is then what the instance was asked for.
    fields.set("num_inference_steps", &steps);
    Ok(Prepared {
        body: fields.to_json().into(),
        stream: cord.stream,
        hide_usage: false,
        prompt_estimate: 0,
        steps,
        kind: Kind::Steps,
    })
}

fn check(fields: &Fields<'_>) -> Result<(), Refusal> {
    if typed::<String>(fields, "prompt", "a string")?.is_none() {
        return Err(Refusal::BadRequest("prompt is required".into()));
    }
    typed::<String>(fields, "negative_prompt", "a string")?;
    typed::<Vec<Text>>(fields, "image_b64", "a list of strings")?;
    typed::<u32>(fields, "seed", "an integer between 0 and 4294967295")?;
    for side in ["height", "width"] {
        let what = "an integer between 128 and 2048";
        in_range(fields, side, 128.0, 2048.0, what)?;
        typed::<u32>(fields, side, what)?;
    }
    for scale in ["guidance_scale", "img_guidance_scale"] {
        in_range(fields, scale, 1.0, 20.0, "a number between 1 and 20")?;
    }
    Ok(())
}

fn in_range(fields: &Fields<'_>, name: &str, least: f64, most: f64, what: &str) -> Result<(), Refusal> {
    let value: Option<f64> = typed(fields, name, what)?;
    if value.is_some_and(|value| !(least..=most).contains(&value)) {
        return Err(Refusal::BadRequest(format!("{name} must be {what}")));
    }
    Ok(())
}
