//! The daily allowance follows what control publishes of a user's funds.

use std::time::{Duration, Instant};

use chrono::{NaiveTime, TimeDelta};
use gateway::clock::Clock;
use gateway::refusal::Refusal;
use protocol::ids::{ChuteId, WriterId};
use protocol::keys::Key;
use protocol::principal::{Bucket, FundsEntry, UserEntry, permission};

use crate::client::Raw;
use crate::instance::{Act, Scripted};
use crate::lease::Sharer;
use crate::platform::{DOMAIN, Platform, Wishes};
use crate::who::{Who, eventually, user};

fn funds(balance: i128, used: u64, mark: (WriterId, u64)) -> FundsEntry {
    let day = Clock::default().now().date_naive();
    FundsEntry { balance, day, used: [(Bucket::Default, used)].into(), marks: [mark].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_counts_own_calls_until_control_has_them_and_a_balance_opens_it() {
    let who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let writer = WriterId::random();
    let sharer = Sharer::start(&who, &who.redis.url(), writer).await;
    let quota = &sharer.quota;
    let user = UserEntry { quotas: [(Bucket::Default, 2)].into(), ..user() };
    let check = async || quota.check(&user, ChuteId::random(), Clock::default().now()).await;
    for sequence in [1, 2] {
        let hold = check().await.unwrap().expect("the user has an allowance");
        assert_eq!(hold.bucket(), Bucket::Default);
        hold.counted(sequence);
    }
    assert!(matches!(check().await.err(), Some(Refusal::QuotaExceeded { quota: 2, .. })));
    let key = Key::funds(user.id);
    who.publish(&key, 1, &funds(0, 1, (writer, 2)));
    eventually("one call is left by control's count", async || check().await.is_ok()).await;
    who.publish(&key, 2, &funds(0, 2, (writer, 2)));
    eventually("nothing is left", async || check().await.is_err()).await;
    who.publish(&key, 3, &funds(1, 2, (writer, 2)));
    eventually("the balance pays", async || check().await.is_ok()).await;
    who.publish(&key, 4, &funds(0, 2, (writer, 2)));
    eventually("the balance is gone", async || check().await.is_err()).await;
    let tomorrow = Clock::default().now() + TimeDelta::days(1);
    assert!(quota.check(&user, ChuteId::random(), tomorrow).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_or_invoiced_account_has_no_allowance_to_use_up() {
    let who = Who::start().await;
    let sharer = Sharer::start(&who, &who.redis.url(), WriterId::random()).await;
    let quota = &sharer.quota;
    for permissions in [permission::FREE_ACCOUNT, permission::INVOICE_BILLING] {
        let user = UserEntry { permissions, quotas: [(Bucket::Default, 0)].into(), ..user() };
        let hold = quota.check(&user, ChuteId::random(), Clock::default().now()).await.unwrap();
        assert!(hold.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn funds_that_changed_serve_on_while_redis_cannot_be_read() {
    let mut who = Who::start().await;
    let writer = WriterId::random();
    let sharer = Sharer::start(&who, &who.redis.url(), writer).await;
    let quota = &sharer.quota;
    let user = UserEntry { quotas: [(Bucket::Default, 2)].into(), ..user() };
    let check = async || quota.check(&user, ChuteId::random(), Clock::default().now()).await;
    let key = who.publish_caller();
    assert!(who.identify(&key).await.is_ok());
    who.publish(&Key::funds(user.id), 1, &funds(0, 1, (writer, 0)));
    assert!(check().await.is_ok());
    who.publish(&Key::funds(user.id), 2, &funds(0, 2, (writer, 0)));
    who.revoke(&key, 2);
    eventually("the later change has arrived", async || who.identify(&key).await.is_err()).await;
    who.control.fails();
    who.redis.kill();
    eventually("the loss is noticed", async || who.metrics.redis.principals.get() == 0).await;
    check().await.expect("the funds known last").expect("the user has an allowance").counted(1);
    assert!(matches!(check().await.err(), Some(Refusal::QuotaExceeded { .. })), "own calls are added all the same");
}

#[tokio::test]
async fn a_call_that_was_let_in_before_midnight_counts_on_that_day_though_it_begins_after_it() {
    const BEFORE: TimeDelta = TimeDelta::seconds(6);
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let now = Clock::default().now();
    let midnight = now.date_naive().succ_opt().unwrap().and_time(NaiveTime::MIN).and_utc();
    let (until, ahead) = (Instant::now() + BEFORE.to_std().unwrap(), midnight - now - BEFORE);
    let settings = vec![format!("--clock-offset={}", ahead.num_seconds())];
    let user: fn(&mut UserEntry) = |user| user.quotas = [(Bucket::Default, 10)].into();
    let platform = Platform::start(&[&scripted], Wishes { settings, user: Some(user), ..Wishes::default() }).await;
    let mut raw = Raw::at(platform.http).await;
    let head = format!("POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nAuthorization: {}", platform.key);
    raw.send(format!("{head}\r\nContent-Length: 2\r\n\r\n{{").as_bytes()).await;
    platform.until("chutes_gateway_limit_decisions_total{limit=\"quota\",way=\"asked\"}", |taken| taken == 1.0).await;
    // A second beside it, as the offset is of whole seconds.
    tokio::time::sleep_until((until + Duration::from_secs(2)).into()).await;
    raw.send(b"}").await;
    assert_eq!(raw.answer().await.status, 200);
    let admission = platform.records(1).await.remove(0).admission;
    assert_eq!((admission.bucket, admission.started_at.date_naive()), (Some(Bucket::Default), midnight.date_naive()));
    assert_eq!(admission.bucket_day, midnight.date_naive().pred_opt());
}
