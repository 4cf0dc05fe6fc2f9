//! Tests of `cache`.

use super::*;
use crate::principals::proof::Proof;
use crate::sync::explore;

fn epochs() -> (Epoch, Epoch) {
    let proof = Proof::new(Duration::from_secs(30));
    let first = proof.current();
    proof.begin(Instant::now());
    (first, proof.current())
}

fn entry(version: u64, text: &'static str) -> Option<Versioned<&'static str>> {
    Some(Versioned { version, entry: text })
}

fn put(cache: &Cache<&'static str>, key: &Arc<str>, version: u64, text: &'static str, epoch: Epoch) {
    let ticket = cache.ticket(key, epoch);
    assert!(matches!(cache.settle(key, ticket, entry(version, text), Instant::now()), Settled::Kept(Some(_))));
}

fn value(cache: &Cache<&'static str>, key: &str) -> Option<(&'static str, Epoch)> {
    match cache.find(key, Instant::now()) {
        Held::Value(value, epoch) => Some((*value, epoch)),
        Held::Overtaken(..) | Held::Absent(_) | Held::Unknown => None,
    }
}

#[test]
fn a_value_is_held_until_it_is_invalidated() {
    let cache = Cache::new(100);
    let (epoch, _) = epochs();
    let key: Arc<str> = "key:a".into();
    put(&cache, &key, 1, "one", epoch);
    assert_eq!(value(&cache, &key), Some(("one", epoch)));
    cache.invalidate(&key);
    assert_eq!(value(&cache, &key), None);
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_value_invalidated_while_it_was_read_is_not_kept() {
    let cache = Cache::new(100);
    let (epoch, _) = epochs();
    let key: Arc<str> = "key:a".into();
    let ticket = cache.ticket(&key, epoch);
    cache.invalidate(&key);
    let settled = cache.settle(&key, ticket, entry(1, "old"), Instant::now());
    assert!(matches!(settled, Settled::Overtaken(Some(old)) if *old == "old"));
    assert_eq!(value(&cache, &key), None);
}

#[test]
fn an_absence_invalidated_while_it_was_read_is_not_kept() {
    let cache: Cache<&'static str> = Cache::new(100);
    let (epoch, _) = epochs();
    let key: Arc<str> = "key:a".into();
    let ticket = cache.ticket(&key, epoch);
    cache.invalidate(&key);
    assert!(matches!(cache.settle(&key, ticket, None, Instant::now()), Settled::Overtaken(None)));
    assert!(matches!(cache.find(&key, Instant::now()), Held::Unknown));
}

#[test]
fn an_older_version_never_replaces_a_newer_one_of_its_epoch() {
    let cache = Cache::new(100);
    let (epoch, _) = epochs();
    let key: Arc<str> = "key:a".into();
    put(&cache, &key, 5, "new", epoch);
    cache.invalidate(&key);
    put(&cache, &key, 4, "old", epoch);
    assert_eq!(value(&cache, &key), Some(("new", epoch)));
    put(&cache, &key, 5, "same", epoch);
    assert_eq!(value(&cache, &key), Some(("same", epoch)));
}

#[test]
fn what_is_read_in_a_later_epoch_counts_although_its_version_is_older() {
    let cache = Cache::new(100);
    let (first, second) = epochs();
    let key: Arc<str> = "key:a".into();
    put(&cache, &key, 5, "before", first);
    put(&cache, &key, 4, "put back", second);
    assert_eq!(value(&cache, &key), Some(("put back", second)));
}

#[test]
fn what_was_read_in_an_ended_epoch_never_replaces_what_was_read_since() {
    let cache = Cache::new(100);
    let (first, second) = epochs();
    let key: Arc<str> = "key:a".into();
    let ticket = cache.ticket(&key, first);
    put(&cache, &key, 4, "put back", second);
    let settled = cache.settle(&key, ticket, entry(5, "before"), Instant::now());
    assert!(matches!(settled, Settled::Overtaken(Some(held)) if *held == "put back"));
    assert_eq!(value(&cache, &key), Some(("put back", second)));
}

#[test]
fn an_absence_is_remembered_for_five_seconds_or_until_the_key_appears() {
    let cache = Cache::new(100);
    let (epoch, _) = epochs();
    let key: Arc<str> = "key:a".into();
    let now = Instant::now();
    assert!(matches!(cache.settle(&key, cache.ticket(&key, epoch), None, now), Settled::Kept(None)));
    assert!(matches!(cache.find(&key, now + Duration::from_millis(4_999)), Held::Absent(_)));
    assert!(matches!(cache.find(&key, now + Duration::from_secs(5)), Held::Unknown));
    put(&cache, &key, 1, "one", epoch);
    assert_eq!(value(&cache, &key), Some(("one", epoch)));
}

#[test]
fn values_and_absences_stay_within_their_bounds() {
    let cache = Cache::new(640);
    let (epoch, _) = epochs();
    for number in 0..10_000 {
        let key: Arc<str> = format!("key:{number}").into();
        put(&cache, &key, 1, "one", epoch);
        let other: Arc<str> = format!("key:absent:{number}").into();
        cache.settle(&other, cache.ticket(&other, epoch), None, Instant::now());
    }
    assert_eq!(cache.len(), 640);
    let absent: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().absent.len()).sum();
    assert!(absent <= 640 / ABSENT_SHARE + SHARDS, "{absent} absences");
}

#[test]
fn a_value_in_use_outlives_those_that_nobody_asks_for() {
    let cache = Cache::new(SHARDS);
    let (epoch, _) = epochs();
    let shard_of = |key: &str| cache.hasher.hash_one(key) % SHARDS as u64;
    let wanted: Arc<str> = "key:wanted".into();
    let neighbours: Vec<Arc<str>> = (0..100_000)
        .map(|number| format!("key:{number}").into())
        .filter(|key: &Arc<str>| shard_of(key) == shard_of(&wanted))
        .take(3)
        .collect();
    let roomy: Cache<&'static str> = Cache { shard_capacity: 2, ..cache };
    put(&roomy, &wanted, 1, "wanted", epoch);
    for neighbour in &neighbours {
        assert!(value(&roomy, &wanted).is_some());
        put(&roomy, neighbour, 1, "neighbour", epoch);
    }
    assert!(value(&roomy, &wanted).is_some());
}

#[test]
fn in_every_order_of_threads_no_outdated_value_stays() {
    explore(2000, || {
        let cache: Arc<Cache<u64>> = Arc::new(Cache::new(100));
        let redis = Arc::new(Mutex::new(1_u64));
        let (epoch, _) = epochs();
        let key: Arc<str> = "key:a".into();
        let mut threads = Vec::new();
        for _ in 0..2 {
            let (cache, redis, key) = (Arc::clone(&cache), Arc::clone(&redis), Arc::clone(&key));
            threads.push(shuttle::thread::spawn(move || {
                let ticket = cache.ticket(&key, epoch);
                let version = *redis.lock().unwrap();
                cache.settle(&key, ticket, Some(Versioned { version, entry: version }), Instant::now());
            }));
        }
        let writer = (Arc::clone(&cache), Arc::clone(&redis), Arc::clone(&key));
        threads.push(shuttle::thread::spawn(move || {
            let (cache, redis, key) = writer;
            for _ in 0..2 {
                *redis.lock().unwrap() += 1;
                cache.invalidate(&key);
            }
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        if let Held::Value(value, _) = cache.find(&key, Instant::now()) {
            assert_eq!(*value, 3, "an outdated value is held");
        }
    });
}
