//! The model list, to the byte.

use proptest::prelude::*;

use super::*;
use crate::fixture;

fn model(name: &str, invocations: u64) -> Chute {
    let mut chute = fixture::chute(name, Some(Template::Vllm));
    chute.invocations = invocations;
    chute.model = Some(json!({ "id": "engine", "object": "model", "owned_by": "vllm", "max_model_len": 4096 }));
    chute
}

#[test]
fn the_list_is_ordered_by_calls_then_name_and_has_prices_where_set() {
    let mut priced = model("b/priced", 5);
    priced.price = Some(TokenPrice { input: 50_000, output: 1_234_567 });
    let chutes = [model("z/tied", 5), model("a/rare", 1), priced];
    let official = [chutes[0].owner];
    let expected = concat!(
        r#"{"object":"list","data":["#,
        r#"{"id":"b/priced","object":"model","owned_by":"vllm","max_model_len":4096,"#,
        r#""price":{"input":{"usd":0.05,"tao":null},"output":{"usd":1.234567,"tao":null}},"#,
        r#""pricing":{"prompt":0.05,"completion":1.234567}},"#,
        r#"{"id":"z/tied","object":"model","owned_by":"vllm","max_model_len":4096},"#,
        r#"{"id":"a/rare","object":"model","owned_by":"vllm","max_model_len":4096}]}"#,
    );
    assert_eq!(models(&chutes, &official), expected);
}

#[test]
fn only_public_llm_chutes_of_official_users_with_a_model_are_listed() {
    let listed = model("listed", 0);
    let mut private = model("private", 0);
    private.public = false;
    let mut image = model("image", 0);
    image.template = Some(Template::Diffusion);
    let mut unknown = model("unknown", 0);
    unknown.model = None;
    let mut stranger = model("stranger", 0);
    stranger.owner = UserId::random();
    let official = [listed.owner];
    let text = models(&[private, image, unknown, stranger, listed], &official);
    let read: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(read["data"].as_array().unwrap().len(), 1);
    assert_eq!(read["data"][0]["id"], "listed");
    assert_eq!(models(&[], &official), r#"{"object":"list","data":[]}"#);
}

proptest! {
    #[test]
    fn a_price_is_told_exactly(micros in 0_u64..1_000_000_000_000_000) {
        let text = json!(dollars(micros)).to_string();
        let read = (text.parse::<f64>().unwrap() * MICROS).round();
        prop_assert_eq!(read as u64, micros);
    }
}
