//! Tests of `reply`: the exact bytes.

use serde_json::json;

use super::*;

fn limited() -> ErrorBody {
    ErrorBody {
        detail: "rate limited".into(),
        message: "rate limited".into(),
        kind: ErrorType::RateLimit,
        code: "rate_limit_exceeded",
    }
}

#[test]
fn call_hosts_say_it_twice() {
    let text = r#"{"detail":"rate limited","error":{"message":"rate limited","type":"rate_limit_error","code":"rate_limit_exceeded","param":null}}"#;
    assert_eq!(limited().to_json(), text);
}

#[test]
fn other_hosts_say_only_the_detail() {
    assert_eq!(limited().to_plain_json(), r#"{"detail":"rate limited"}"#);
}

#[test]
fn a_stream_ends_with_an_event() {
    let text = "data: {\"error\":{\"message\":\"rate limited\",\"type\":\"rate_limit_error\",\"code\":\"rate_limit_exceeded\",\"param\":null}}\n\n";
    assert_eq!(limited().to_stream_event(), text);
}

#[test]
fn a_detail_may_be_an_object_in_its_own_order() {
    let body = ErrorBody { detail: json!({ "message": "Quota exceeded", "at": 1 }), ..limited() };
    assert_eq!(body.to_plain_json(), r#"{"detail":{"message":"Quota exceeded","at":1}}"#);
}

#[test]
fn a_message_cannot_break_out_of_the_event() {
    let body = ErrorBody { message: "a\n\ndata: \"x\"".into(), ..limited() };
    let event = body.to_stream_event();
    assert!(event.starts_with(r#"data: {"error":{"message":"a\n\ndata: \"x\"","type""#));
    assert_eq!(event.matches('\n').count(), 2);
}

#[test]
fn each_family_has_its_literal_name() {
    let names = [
        (ErrorType::InvalidRequest, "invalid_request_error"),
        (ErrorType::Authentication, "authentication_error"),
        (ErrorType::Permission, "permission_error"),
        (ErrorType::NotFound, "not_found_error"),
        (ErrorType::RateLimit, "rate_limit_error"),
        (ErrorType::InsufficientQuota, "insufficient_quota"),
        (ErrorType::Server, "server_error"),
    ];
    for (kind, name) in names {
        assert_eq!(kind.as_str(), name);
    }
}
