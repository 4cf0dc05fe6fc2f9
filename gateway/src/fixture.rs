//! Chutes for tests, as the directory describes them.

use protocol::directory::{Chute, Cord, Template};
use serde_json::json;

/// A public chute without cords.
pub(crate) fn chute(name: &str, template: Option<Template>) -> Chute {
    serde_json::from_value(json!({
        "id": "11111111-1111-4111-8111-111111111111",
        "name": name,
        "slug": "chutes-model",
        "owner": "22222222-2222-4222-8222-222222222222",
        "public": true,
        "shares": [],
        "template": template,
        "cords": [],
        "image": "33333333-3333-4333-8333-333333333333",
        "image_owner": "22222222-2222-4222-8222-222222222222",
        "model": null,
        "price": null,
        "concurrency": 4,
        "multiplier": 1.0,
        "invocations": 0,
        "rate_per_minute": null,
        "max_concurrent": null,
        "maintenance": false,
        "instances": [],
    }))
    .unwrap()
}

/// A cord that is reached by POST.
pub(crate) fn cord(function: &str, public_path: &str, stream: bool) -> Cord {
    Cord {
        function: function.into(),
        path: format!("/{function}"),
        public_path: Some(public_path.into()),
        public_method: "POST".into(),
        stream,
        passthrough: true,
        content_type: None,
    }
}
