//! The directory in force follows good snapshots and survives bad ones.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use gateway::clock::Clock;
use protocol::directory::{Chute, Directory};
use protocol::ids::{ChuteId, ImageId, UserId};
use protocol::keys::Key;
use protocol::slug::Slug;

use crate::who::{Who, eventually};

fn chute(slug: &str) -> Chute {
    Chute {
        id: ChuteId::random(),
        name: slug.into(),
        slug: Slug::parse(slug).unwrap(),
        owner: UserId::random(),
        public: true,
        shares: vec![],
        template: None,
        cords: vec![],
        image: ImageId::random(),
        image_owner: UserId::random(),
        model: None,
        price: None,
        concurrency: 1,
        multiplier: 1.0,
        invocations: 0,
        rate_per_minute: None,
        max_concurrent: None,
        maintenance: false,
        instances: vec![],
    }
}

fn snapshot(slugs: &[&str], version: u64, forced: bool) -> String {
    let directory = Directory { chutes: slugs.iter().map(|slug| chute(slug)).collect(), ..Directory::default() };
    directory.to_snapshot(version, made_at(), forced)
}

fn made_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn write(who: &Who, snapshot: &str) {
    redis::Cmd::set(Key::directory().as_str(), snapshot).exec(&mut who.redis.connection()).unwrap();
}

fn announce(who: &Who) {
    redis::Cmd::publish(Key::directory_changed().as_str(), 1).exec(&mut who.redis.connection()).unwrap();
}

fn has(who: &Who, slug: &str) -> bool {
    who.directory.current().is_some_and(|routes| routes.by_slug(slug).is_some())
}

fn refused(who: &Who, reason: &str) -> u64 {
    who.metrics.who.directory_refused.with_label_values(&[reason]).get()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_in_force_at_once_when_announced_and_soon_when_not() {
    let who = Who::start().await;
    assert!(who.directory.current().is_none());
    write(&who, &snapshot(&["a"], 1, false));
    eventually("the first is in force", async || has(&who, "a")).await;
    assert_eq!((who.metrics.who.directory_version.get(), who.metrics.who.directory_made_at.get()), (1, 1_800_000_000));
    write(&who, &snapshot(&["a", "b"], 2, false));
    announce(&who);
    let announced_at = Instant::now();
    eventually("the second is in force", async || has(&who, "b")).await;
    assert!(announced_at.elapsed() < Duration::from_secs(1));
    write(&who, &snapshot(&["a", "c"], 3, false));
    eventually("the third is in force", async || has(&who, "c")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_truncated_older_or_halved_directory_is_refused_until_forced() {
    let who = Who::start().await;
    let good = snapshot(&["a", "b", "c"], 5, false);
    write(&who, &good);
    eventually("the good one is in force", async || has(&who, "c")).await;
    let bad = [
        ("empty", snapshot(&[], 6, false)),
        ("damaged", good[..good.len() - 1].replace("\"version\":5", "\"version\":6")),
        ("older", snapshot(&["a", "b", "c", "d"], 4, false)),
        ("shrunk", snapshot(&["a"], 6, false)),
        ("unreadable", "not a header\nnot a body".into()),
    ];
    for (reason, text) in bad {
        write(&who, &text);
        announce(&who);
        eventually(reason, async || refused(&who, reason) == 1).await;
        assert!(has(&who, "c"), "{reason}");
    }
    write(&who, &snapshot(&["a"], 7, true));
    announce(&who);
    eventually("the forced one is in force", async || !has(&who, "c")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_directory_that_is_forced_takes_force_and_versions_go_on_from_it() {
    let who = Who::start().await;
    write(&who, &snapshot(&["a", "b", "c"], 500, false));
    eventually("the good one is in force", async || has(&who, "c")).await;
    write(&who, &snapshot(&["a"], 7, true));
    announce(&who);
    eventually("the forced one is in force", async || who.metrics.who.directory_version.get() == 7).await;
    assert!(!has(&who, "c"));
    write(&who, &snapshot(&["a", "d"], 8, false));
    announce(&who);
    eventually("the next one is in force", async || has(&who, "d")).await;
    write(&who, &snapshot(&["a", "e"], 7, false));
    announce(&who);
    eventually("an older one is refused again", async || refused(&who, "older") == 1).await;
    assert!(has(&who, "d") && !has(&who, "e"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_serves_on_without_redis_and_its_age_shows() {
    let mut who = Who::start().await;
    write(&who, &snapshot(&["a"], 1, false));
    eventually("it is in force", async || has(&who, "a")).await;
    redis::cmd("FLUSHALL").exec(&mut who.redis.connection()).unwrap();
    eventually("its loss is counted", async || refused(&who, "missing") == 1).await;
    assert!(has(&who, "a"));
    who.redis.kill();
    let seen_at = who.metrics.who.directory_seen_at.get();
    let age = || Clock::default().now().timestamp() - seen_at;
    eventually("it ages", async || age() >= 2).await;
    assert_eq!(who.metrics.who.directory_seen_at.get(), seen_at);
    assert!(has(&who, "a"));
    who.redis.restart();
    write(&who, &snapshot(&["a", "b"], 2, false));
    eventually("it is followed again", async || has(&who, "b")).await;
}
