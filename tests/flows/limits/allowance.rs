//! Calls a day: the allowance is used up by all gateways together, once, and each call of it is counted.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use sqlx::PgPool;
use stack::proof::Size;
use stack::screen;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Decisions, GATEWAYS, LONGEST, POLL, known_user, part, scene, urls};
use crate::books;
use crate::scene::User;

/// How long nobody may be let in while calls are left: what one gateway kept ready has gone to others by then.
const STUCK: Duration = Duration::from_secs(30);
/// Calls at once at each gateway.
const AT_ONCE: usize = 4;

/// Calls at all gateways at the same time; how many were let in.
async fn burst(web: &Client, urls: &[String], user: &User) -> usize {
    let mut calls = JoinSet::new();
    for url in urls.iter().flat_map(|url| [url; AT_ONCE]) {
        let request = web.get(url).bearer_auth(&user.key).timeout(LONGEST);
        calls.spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status();
            // The rest of the answer is waited for, so that the connection serves the next call.
            answer.bytes().await.unwrap();
            status
        });
    }
    let ended = calls.join_all().await;
    let expected = [StatusCode::OK, StatusCode::PAYMENT_REQUIRED];
    assert!(ended.iter().all(|status| expected.contains(status)), "{ended:?}");
    ended.iter().filter(|status| **status == StatusCode::OK).count()
}

/// What is counted of the user's allowance, day by day.
async fn used(db: &PgPool, user: Uuid) -> Vec<i64> {
    let text = "select calls from quota_usage where user_id = $1 order by day";
    sqlx::query_scalar(text).bind(user).fetch_all(db).await.unwrap()
}

#[tokio::test]
async fn four_gateways_let_a_user_have_his_allowance_and_not_a_call_more() {
    let mut scene = scene().await;
    let quota = Size::asked().pick(100, 2_000);
    let limits = ["--rate", "10000000", "--concurrent", "1000"];
    let user = known_user(&mut scene, "a-day", quota, &limits).await;
    let id: Uuid = user.id.parse().unwrap();

    let (web, urls) = (scene.client(), urls(&scene));
    let (mut let_in, before) = (GATEWAYS, Decisions::read(&scene).await);
    let far_from_it = quota as usize / 2;
    while let_in < far_from_it {
        let_in += burst(&web, &urls, &user).await;
    }
    let Decisions([_, quota_decisions, _]) = before.since(&scene, "the first half of an allowance").await;
    assert!(part(&[quota_decisions]) >= Size::asked().pick(0.5, 0.99), "too many round trips");
    let mut last = Instant::now();
    while let_in < quota as usize {
        let more = burst(&web, &urls, &user).await;
        if more > 0 {
            last = Instant::now();
        }
        let_in += more;
        assert!(last.elapsed() < STUCK, "only {let_in} of {quota} were let in");
    }
    let refused_all = burst(&web, &urls, &user).await == 0;

    let deadline = Instant::now() + LONGEST;
    while books::count(&scene.db, id).await < let_in {
        assert!(Instant::now() < deadline, "not all of {let_in} calls are recorded");
        sleep(POLL).await;
    }
    let days = used(&scene.db, id).await;
    screen::say(&format!("an allowance of {quota}: {let_in} calls were let in, {days:?} are counted"));
    assert_eq!(days.iter().sum::<i64>(), let_in as i64);
    assert!(days.iter().all(|used| *used <= i64::from(quota)), "more calls than a day has");
    // At midnight there is another allowance.
    assert!(refused_all || days.len() > 1, "calls beyond the allowance were let in");
    books::compare_counts(&scene.db).await;
}
