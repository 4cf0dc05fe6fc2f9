//! The sample chutes: what the templates of the SDK would register.

use anyhow::Context;
use serde_json::{Value, json};

use super::Chute;
use crate::admin::Admin;
use crate::miner::{self, Engine};

/// Owner of the sample chutes; the default of control's official users.
pub const OFFICIAL_USER: &str = "chutes";
const IMAGE: &str = "sample";
const TAG: &str = "1.0";

/// Creates the official user, an image and the chutes; `text` is how many calls an instance of text serves at once.
pub(super) async fn create(admin: &mut Admin, text: usize) -> anyhow::Result<Vec<Chute>> {
    admin.run(&["user", "create", "--username", OFFICIAL_USER]).await?;
    let image = ["image", "create", "--user", OFFICIAL_USER, "--name", IMAGE, "--tag", TAG];
    let image = admin.text(&image, "image_id").await?;
    let mut chutes = Vec::new();
    for engine in [Engine::Vllm, Engine::Embedding, Engine::Diffusion] {
        let (model, concurrency, spec) = specification(engine, &image, text);
        let created = admin.run(&["chute", "create", "--spec", &spec.to_string()]).await?;
        let field = |name: &str| created.get(name).and_then(Value::as_str).context("a field of the chute is missing");
        chutes.push(Chute {
            id: field("chute_id")?.parse().context("reading a chute's id")?,
            slug: field("slug")?.to_owned(),
            model: model.to_owned(),
            engine,
            concurrency,
            instances: Vec::new(),
        });
    }
    Ok(chutes)
}

/// Name, concurrency of an instance, and the text for `chute create`.
fn specification(engine: Engine, image: &str, text: usize) -> (&'static str, usize, Value) {
    match engine {
        Engine::Vllm => {
            let (name, concurrency) = ("sample/words-1b", text);
            let cords = [
                cord("chat_stream", "/chat_stream", "/v1/chat/completions", "POST", true),
                cord("chat", "/chat", "/v1/chat/completions", "POST", false),
                cord("completion_stream", "/completion_stream", "/v1/completions", "POST", true),
                cord("completion", "/completion", "/v1/completions", "POST", false),
                cord("get_models", "/get_models", "/v1/models", "GET", false),
            ];
            let mut spec = chute(name, image, "vllm", concurrency, &cords);
            spec["model"] = miner::model_object(name);
            spec["price"] = json!({"input": 100_000, "output": 400_000});
            (name, concurrency, spec)
        }
        Engine::Embedding => {
            let (name, concurrency) = ("sample/vectors-64", 32);
            let cords = [cord("embed", "/v1/embeddings", "/v1/embeddings", "POST", false)];
            (name, concurrency, chute(name, image, "embedding", concurrency, &cords))
        }
        Engine::Diffusion => {
            let (name, concurrency) = ("sample/pictures", 4);
            let mut generate = cord("generate", "/generate", "/generate", "POST", false);
            generate["passthrough"] = json!(false);
            generate["content_type"] = json!("image/jpeg");
            (name, concurrency, chute(name, image, "diffusion", concurrency, &[generate]))
        }
    }
}

fn chute(name: &str, image: &str, template: &str, concurrency: usize, cords: &[Value]) -> Value {
    json!({
        "user": OFFICIAL_USER, "name": name, "image": image, "template": template, "public": true,
        "concurrency": concurrency, "cords": cords, "multiplier": 1.0,
    })
}

fn cord(function: &str, path: &str, public_path: &str, method: &str, stream: bool) -> Value {
    json!({
        "function": function, "path": path, "public_path": public_path, "public_method": method, "stream": stream,
        "passthrough": true, "content_type": if stream { "text/event-stream" } else { "application/json" },
    })
}
