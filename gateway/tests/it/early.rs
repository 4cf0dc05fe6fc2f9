//! Instances that answer before they have read a request, through the real executable.

use std::time::Duration;

use tokio::time::timeout;

use crate::client::ask;
use crate::instance::{Act, Scripted};
use crate::platform::{Platform, Wishes};

/// More than the kernel takes of a request that nobody reads.
const LARGE: usize = 6 << 20;
/// Less than an instance may take nothing of a request.
const SOON: Duration = Duration::from_secs(25);
const FULL: &str = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
const FULL_AFTER_ALL: &str = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 429 Full\r\nContent-Length: 2\r\n\r\n{}";
const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const WRONG: &str = "HTTP/1.1 422 Wrong\r\nContent-Length: 17\r\n\r\n{\"detail\":\"long\"}";

fn large() -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(LARGE))
}

#[tokio::test]
async fn what_an_instance_says_before_it_has_read_a_request_counts_as_said() {
    for (said, reason) in [(FULL, "RATE_LIMIT"), (FULL_AFTER_ALL, "RATE_LIMIT"), (BEGUN, "GARBLED_ANSWER")] {
        for early in [Act::EarlyAndClose(said), Act::EarlyAndStay(said)] {
            let [first, second] = Scripted::pair([early, Act::Json("{}".into())]).await;
            let platform = Platform::start(&[&first, &second], Wishes::default()).await;
            let body = large();
            let asked = ask(&platform, "POST", "own-chute", "/run", &body);
            let got = timeout(SOON, asked).await.expect("the answer is there already");
            assert_eq!((got.status, got.text().as_str()), (200, "{}"));
            let records = platform.records(2).await;
            assert_eq!((records[0].error.as_deref(), records[1].error.as_deref()), (Some(reason), None), "{said}");
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_a_request_broke_off_is_not_used_again() {
    let scripted = Scripted::start([Act::EarlyAndStay(WRONG), Act::Json("{}".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let got = timeout(SOON, ask(&platform, "POST", "own-chute", "/run", &large())).await.unwrap();
    assert_eq!((got.status, got.text().as_str()), (422, r#"{"detail":"long"}"#));
    let got = timeout(SOON, ask(&platform, "POST", "own-chute", "/run", "{}")).await.unwrap();
    assert_eq!((got.status, scripted.connections()), (200, 2));
}
