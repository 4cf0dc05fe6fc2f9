//! Operator commands about users, keys, sessions, allowances and balances.

use std::collections::BTreeSet;

use blake2::{Blake2b512, Digest};
use control::db;
use control::db::outbox::{self, Change};
use protocol::credential::{ApiKey, Scopes};
use protocol::ids::{ApiKeyId, UserId};
use protocol::principal::Bucket;
use protocol::session::{SessionSigner, SessionVerifier};
use protocol::signing::Hotkey;
use serde_json::{Value, json};

use crate::world::{ALICE, BOB, SESSION_SEED, World};

fn user_id(answer: &Value) -> UserId {
    answer["user_id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_user_is_made_by_the_recipes_and_shown() {
    let world = World::new().await;
    let made = world.run(&["user", "create", "--username", "Jon_1", "--hotkey", ALICE, "--rate", "5"]).await;
    let fingerprint = made["fingerprint"].as_str().unwrap();
    assert_eq!(fingerprint.chars().collect::<BTreeSet<_>>().len(), 32);
    let hash = hex::encode(Blake2b512::digest(fingerprint.as_bytes()));
    assert_eq!(user_id(&made), UserId::of_fingerprint_hash(&hash));
    let shown = world.run(&["user", "show", "--user", "jon_1"]).await;
    let expected = json!({
        "user_id": made["user_id"], "username": "Jon_1", "hotkey": ALICE, "permissions": 0, "rate_per_minute": 5,
        "max_concurrent": null, "generation": 1, "quotas": {"*": 200}, "used_today": {}, "balance_usd": "0",
    });
    assert_eq!(shown, expected);
    let changes: Vec<Change> =
        outbox::oldest(&world.state.db, 10).await.unwrap().into_iter().map(|waiting| waiting.change).collect();
    let id = user_id(&made);
    assert_eq!(changes, [Change::User(id), Change::Funds(id), Change::Hotkey(Hotkey::parse(ALICE).unwrap())]);
}

#[tokio::test]
async fn names_and_hotkeys_that_are_taken_or_wrong_are_refused_in_words() {
    let world = World::new().await;
    world.run(&["user", "create", "--username", "jon", "--hotkey", ALICE]).await;
    let taken = world.fail(&["user", "create", "--username", "JON"]).await;
    assert_eq!(taken, "the user name is taken: jon");
    let short = world.fail(&["user", "create", "--username", "jo"]).await;
    assert_eq!(short, "a user name has 3 to 15 letters, digits, _ and -");
    let hotkey = world.fail(&["user", "create", "--username", "eve", "--hotkey", ALICE]).await;
    assert_eq!(hotkey, format!("the hotkey is another user's: {ALICE}"));
    assert!(world.fail(&["user", "create", "--username", "eve", "--hotkey", "5x"]).await.contains("--hotkey"));
    assert_eq!(world.fail(&["user", "show", "--user", "eve"]).await, "there is no user eve");
    let nobody = UserId::random().to_string();
    assert_eq!(world.fail(&["user", "show", "--user", &nobody]).await, format!("there is no user {nobody}"));
}

#[tokio::test]
async fn limits_are_set_one_by_one_and_given_back_to_the_default() {
    let world = World::new().await;
    world.run(&["user", "create", "--username", "jon", "--permissions", "32"]).await;
    let set = world.run(&["user", "set", "--user", "jon", "--rate", "7", "--concurrent", "9"]).await;
    assert_eq!(
        (&set["permissions"], &set["rate_per_minute"], &set["max_concurrent"]),
        (&json!(32), &json!(7), &json!(9))
    );
    let set = world.run(&["user", "set", "--user", "jon", "--rate", "default", "--permissions", "0"]).await;
    assert_eq!(
        (&set["permissions"], &set["rate_per_minute"], &set["max_concurrent"]),
        (&json!(0), &Value::Null, &json!(9))
    );
    assert!(world.fail(&["user", "set", "--user", "jon", "--rate", "0"]).await.contains("a limit is a number from 1"));
    assert!(world.fail(&["user", "set", "--user", "jon", "--rate", "4294967295"]).await.contains("at most 2147483647"));
    assert_eq!(world.fail(&["user", "set", "--user", "eve", "--rate", "1"]).await, "there is no user eve");
}

#[tokio::test]
async fn a_deleted_user_loses_keys_and_sessions_and_frees_the_hotkey() {
    let world = World::new().await;
    let made = world.run(&["user", "create", "--username", "jon", "--hotkey", ALICE]).await;
    let key = world.run(&["key", "create", "--user", "jon", "--admin"]).await;
    world.run(&["user", "delete", "--user", "jon"]).await;
    assert_eq!(world.fail(&["user", "show", "--user", "jon"]).await, "there is no user jon");
    assert_eq!(world.fail(&["user", "delete", "--user", "jon"]).await, "there is no user jon");
    let entry = db::users::entry(&world.state.db, user_id(&made)).await.unwrap().unwrap();
    assert!(entry.entry.deleted && entry.entry.generation == 2);
    let key_id: ApiKeyId = key["api_key_id"].as_str().unwrap().parse().unwrap();
    assert!(db::api_keys::entry(&world.state.db, key_id).await.unwrap().unwrap().entry.revoked);
    let hotkey = Hotkey::parse(ALICE).unwrap();
    let freed = db::hotkeys::entry(&world.state.db, &hotkey).await.unwrap().unwrap();
    assert_eq!(freed.entry.user, None);
    let heir = world.run(&["user", "create", "--username", "eve", "--hotkey", ALICE]).await;
    let given = db::hotkeys::entry(&world.state.db, &hotkey).await.unwrap().unwrap();
    assert_eq!(given.entry.user, Some(user_id(&heir)));
    assert!(given.version > freed.version);
    assert_eq!(world.fail(&["user", "create", "--username", "Jon"]).await, "the user name is taken: jon");
}

#[tokio::test]
async fn a_key_is_shown_once_stored_as_a_hash_and_revoked_for_good() {
    let world = World::new().await;
    let user = world.run(&["user", "create", "--username", "jon"]).await;
    let made = world.run(&["key", "create", "--user", "jon", "--name", "laptop", "--admin"]).await;
    let key = ApiKey::parse(made["secret_key"].as_str().unwrap()).unwrap();
    assert_eq!(key.user(), user_id(&user));
    let stored = db::api_keys::entry(&world.state.db, key.id()).await.unwrap().unwrap();
    assert!(stored.entry.hash.matches(&key) && !stored.entry.revoked);
    assert_eq!(stored.entry.scopes, Scopes::Admin);
    let id = key.id().to_string();
    world.run(&["key", "revoke", "--key", &id]).await;
    let revoked = db::api_keys::entry(&world.state.db, key.id()).await.unwrap().unwrap();
    assert!(revoked.entry.revoked && revoked.version > stored.version);
    assert_eq!(world.fail(&["key", "revoke", "--key", &id]).await, format!("there is no valid key {id}"));
}

#[tokio::test]
async fn a_key_is_for_everything_or_for_its_scopes_but_not_for_both_or_nothing() {
    let world = World::new().await;
    world.run(&["user", "create", "--username", "jon"]).await;
    let create = ["key", "create", "--user", "jon", "--name", "a"];
    let scope = r#"{"object_type":"chutes","action":"invoke"}"#;
    let made = world.run(&[&create[..], &["--scope", scope, "--scope", r#"{"object_type":"images"}"#]].concat()).await;
    let id: ApiKeyId = made["api_key_id"].as_str().unwrap().parse().unwrap();
    let stored = db::api_keys::entry(&world.state.db, id).await.unwrap().unwrap();
    assert!(matches!(stored.entry.scopes, Scopes::Listed(scopes) if scopes.len() == 2));
    assert!(world.fail(&create).await.contains("required"));
    assert!(world.fail(&[&create[..], &["--admin", "--scope", scope]].concat()).await.contains("cannot be used with"));
    assert!(
        world.fail(&[&create[..], &["--scope", r#"{"object_type":"users"}"#]].concat()).await.contains("not a scope")
    );
    let again = world.fail(&[&create[..], &["--admin"]].concat()).await;
    assert!(again.starts_with("the user has a key of this name"), "{again}");
    assert_eq!(world.fail(&["key", "create", "--user", "eve", "--admin"]).await, "there is no user eve");
}

#[tokio::test]
async fn a_session_token_verifies_and_ends_with_its_generation() {
    let world = World::new().await;
    let user = world.run(&["user", "create", "--username", "jon"]).await;
    let token = world.run(&["token", "issue", "--user", "jon", "--days", "2"]).await;
    let verifier = SessionVerifier::new(SessionSigner::from_seed(SESSION_SEED).public_key());
    let now = world.state.clock.now();
    let session = verifier.verify(token["token"].as_str().unwrap(), now).unwrap();
    assert_eq!((session.user, session.generation), (user_id(&user), 1));
    assert_eq!((session.expires_at - now).num_hours(), 47);
    assert_eq!(world.run(&["token", "end", "--user", "jon"]).await["generation"], 2);
    assert!(world.fail(&["token", "issue", "--user", "jon", "--days", "0"]).await.contains("--days"));
    assert_eq!(world.fail(&["token", "issue", "--user", "eve"]).await, "there is no user eve");
    assert_eq!(world.fail(&["token", "end", "--user", "eve"]).await, "there is no user eve");
}

#[tokio::test]
async fn allowances_are_set_for_all_chutes_or_for_one() {
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    let user = world.run(&["user", "create", "--username", "jon"]).await;
    world.run(&["quota", "set", "--user", "jon", "--calls", "0"]).await;
    world.run(&["quota", "set", "--user", "jon", "--calls", "5", "--chute", chute["slug"].as_str().unwrap()]).await;
    world.run(&["quota", "set", "--user", "jon", "--calls", "6", "--chute", chute["chute_id"].as_str().unwrap()]).await;
    let entry = db::users::entry(&world.state.db, user_id(&user)).await.unwrap().unwrap().entry;
    let of_chute = Bucket::Chute(chute["chute_id"].as_str().unwrap().parse().unwrap());
    assert_eq!(entry.quotas, [(Bucket::Default, 0), (of_chute, 6)].into());
    let unknown = world.fail(&["quota", "set", "--user", "jon", "--calls", "5", "--chute", "no-such"]).await;
    assert_eq!(unknown, "there is no chute no-such");
    assert!(world.fail(&["quota", "set", "--user", "jon", "--calls", "-1"]).await.contains("unexpected argument"));
    assert_eq!(world.fail(&["quota", "set", "--user", "eve", "--calls", "1"]).await, "there is no user eve");
}

#[tokio::test]
async fn balances_are_exact_to_the_pico_dollar() {
    let world = World::new().await;
    let user = world.run(&["user", "create", "--username", "jon"]).await;
    for (usd, pico) in
        [("12345678901234567890.000000000001", 12_345_678_901_234_567_890_000_000_000_001), ("-0.5", -500_000_000_000)]
    {
        world.run(&["balance", "set", "--user", "jon", "--usd", usd]).await;
        let funds =
            db::balances::entry(&world.state.db, user_id(&user), world.state.clock.now()).await.unwrap().unwrap();
        assert_eq!(funds.entry.balance, pico);
    }
    assert!(
        world.fail(&["balance", "set", "--user", "jon", "--usd", "0.0000000000001"]).await.contains("decimal dollars")
    );
    assert_eq!(world.fail(&["balance", "set", "--user", BOB, "--usd", "1"]).await, format!("there is no user {BOB}"));
}

#[tokio::test]
async fn a_batch_answers_each_line_and_goes_on_after_a_bad_one() {
    let world = World::new().await;
    let lines = [
        "[\"user\",\"create\",\"--username\",\"jon\"]",
        "not json",
        "{\"a\":1}",
        "[1]",
        "",
        "[\"no\",\"such\"]",
        "[]",
        "[\"batch\"]",
        "[\"user\",\"show\",\"--user\",\"jon\"]",
    ];
    let answers = world.batch(&lines.join("\n")).await;
    let oks: Vec<bool> = answers.iter().map(|answer| answer["ok"].as_bool().unwrap()).collect();
    assert_eq!(oks, [true, false, false, false, false, false, false, true]);
    assert_eq!(answers[1]["error"], "a command is a JSON array of words");
    assert_eq!(answers[6]["error"], "a batch cannot begin inside a batch");
}
