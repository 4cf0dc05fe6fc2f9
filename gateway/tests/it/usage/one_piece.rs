//! A gateway killed while an answer in one piece is on its way to its client.

use protocol::usage::Outcome;

use crate::client::{Raw, chat, request};
use crate::instance::Scripted;
use crate::platform::{Platform, Wishes};
use crate::slow::{MORE_THAN_FITS, whole};

#[tokio::test]
async fn an_answer_in_one_piece_of_which_a_killed_gateway_has_sent_a_part_counts_whole() {
    let instance = Scripted::start([whole(MORE_THAN_FITS)]).await;
    let mut platform = Platform::start(&[&instance], Wishes::default()).await;
    let mut raw = Raw::connect_narrow(&platform, 16 << 10).await;
    raw.send(&request(&platform, "POST", "llm-chute", "/v1/chat/completions", &chat(false))).await;
    raw.read_until("xxx").await;
    platform.kill().await;
    let next = platform.start_another(&[]);
    platform.continue_with(next).await;
    platform.until("chutes_gateway_logs_adopted_total", |logs| logs == 1.0).await;
    let records = platform.records(1).await;
    assert_eq!(records.len(), 1, "{records:?}");
    let got = (records[0].outcome, records[0].delivered, records[0].error.as_deref(), records[0].facts.tokens);
    assert_eq!(got, (Outcome::Lost, true, None, MORE_THAN_FITS as u64 / 4));
}
