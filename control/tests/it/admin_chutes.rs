//! Operator commands about images, chutes, shares, instances, aliases and what is published.

use protocol::ids::{ChuteId, ImageId};
use protocol::sealing::{DirectoryKey, SealedKey};
use protocol::slug::Slug;
use serde_json::{Value, json};

use crate::world::{ALICE, DATABASE_KEY, INSTANCE_KEY, World, description};

async fn count(world: &World, table: &str) -> i64 {
    let statement = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&world.state.db).await.unwrap()
}

#[tokio::test]
async fn an_image_has_the_identifier_of_the_recipe_and_exists_once() {
    let world = World::new().await;
    world.run(&["user", "create", "--username", "Jon"]).await;
    let create = ["image", "create", "--user", "Jon", "--name", "vllm", "--tag", "1.0"];
    let made = world.run(&create).await;
    assert_eq!(made["image_id"], json!(ImageId::of_tag("jon", "vllm", "1.0")));
    assert!(world.fail(&create).await.starts_with("there is such an image already"));
    let named = world.fail(&["image", "create", "--user", "Jon", "--name", "VLLM", "--tag", "1.0"]).await;
    assert!(named.starts_with("an image's name has"), "{named}");
    let tagged = world.fail(&["image", "create", "--user", "Jon", "--name", "vllm", "--tag", "-"]).await;
    assert!(tagged.starts_with("an image's tag has"), "{tagged}");
    let nobody = world.fail(&["image", "create", "--user", "eve", "--name", "vllm", "--tag", "1.0"]).await;
    assert_eq!(nobody, "there is no user eve");
}

#[tokio::test]
async fn a_chute_has_identifier_and_slug_of_the_recipes() {
    let world = World::new().await;
    let made = world.chute("unsloth/Llama-3.2-1B").await;
    assert_eq!(made["chute_id"], json!(ChuteId::of_name("chutes", "unsloth/Llama-3.2-1B")));
    assert_eq!(made["slug"], json!(Slug::of_name("chutes", "unsloth/Llama-3.2-1B")));
    let other = world.chute("unsloth/Llama-3-2-1B").await;
    let (slug, taken) = (other["slug"].as_str().unwrap(), made["slug"].as_str().unwrap());
    assert!(slug.starts_with(&format!("{taken}-")) && slug.len() == taken.len() + 6, "{slug}");
    let again = world.fail(&["chute", "create", "--spec", &description("unsloth/Llama-3.2-1B").to_string()]).await;
    assert!(again.starts_with("the user has a chute of this name"), "{again}");
}

#[tokio::test]
async fn a_chute_is_described_in_a_file_too() {
    let world = World::new().await;
    world.chute("first").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), description("second").to_string()).unwrap();
    let path = file.path().display().to_string();
    let made = world.run(&["chute", "create", "--file", &path]).await;
    assert_eq!(made["slug"], "chutes-second");
    assert!(world.fail(&["chute", "create", "--file", "/nowhere/at-all"]).await.starts_with("cannot read"));
    assert!(world.fail(&["chute", "create"]).await.contains("required"));
}

#[tokio::test]
async fn a_description_that_breaks_a_rule_is_refused_in_words() {
    let world = World::new().await;
    world.chute("first").await;
    let with = |field: &str, value: Value| {
        let mut text = description("second");
        text[field] = value;
        text.to_string()
    };
    let cases = [
        (with("user", json!("eve")), "there is no user eve"),
        (with("image", json!("vllm:2.0")), "there is no image vllm:2.0"),
        (with("name", json!("a b")), "a chute's name has"),
        (with("cords", json!([])), "a chute has 1 to 64 cords"),
        (with("concurrency", json!(0)), "concurrency is 1 to 256"),
        (with("multiplier", json!(-1.0)), "a multiplier is a positive number"),
        (with("surprise", json!(1)), "not a description of a chute: unknown field"),
        ("{".to_owned(), "not a description of a chute"),
    ];
    for (text, reason) in cases {
        let failure = world.fail(&["chute", "create", "--spec", &text]).await;
        assert!(failure.starts_with(reason), "{failure}");
    }
    assert_eq!(count(&world, "chutes").await, 1);
}

#[tokio::test]
async fn a_chute_is_changed_field_by_field_and_deleted_with_what_belongs_to_it() {
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    world.instance(&chute, 9001).await;
    world.run(&["user", "create", "--username", "jon"]).await;
    world.run(&["share", "add", "--chute", "chutes-org-model", "--user", "jon"]).await;
    let set = ["chute", "set", "--chute", "chutes-org-model"];
    let first = world
        .run(&[&set[..], &["--public", "false", "--maintenance", "true", "--rate", "3", "--concurrent", "4"]].concat())
        .await;
    assert_eq!((&first["public"], &first["maintenance"]), (&json!(false), &json!(true)));
    let words = [
        "--rate",
        "default",
        "--concurrency",
        "16",
        "--multiplier",
        "1.5",
        "--price-input",
        "1",
        "--price-output",
        "2",
    ];
    let second = world.run(&[&set[..], &words, &["--model", "{\"id\":\"m\"}"]].concat()).await;
    let expected = json!({
        "chute_id": chute["chute_id"], "public": false, "maintenance": true, "rate_per_minute": null,
        "max_concurrent": 4, "concurrency": 16, "multiplier": 1.5, "price": {"input": 1, "output": 2},
        "model": {"id": "m"},
    });
    assert_eq!(second, expected);
    assert!(world.fail(&[&set[..], &["--concurrency", "0"]].concat()).await.contains("concurrency is 1 to 256"));
    assert!(world.fail(&[&set[..], &["--price-input", "1"]].concat()).await.contains("required"));
    assert!(world.fail(&[&set[..], &["--model", "{"]].concat()).await.contains("not JSON"));
    world.run(&["chute", "delete", "--chute", "chutes-org-model"]).await;
    assert_eq!((count(&world, "instances").await, count(&world, "shares").await), (0, 0));
    for verb in ["set", "delete"] {
        let gone = world.fail(&["chute", verb, "--chute", chute["chute_id"].as_str().unwrap()]).await;
        assert!(gone.starts_with("there is no chute"), "{gone}");
    }
}

#[tokio::test]
async fn a_share_is_added_once_and_removed_once() {
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    let id = chute["chute_id"].as_str().unwrap();
    world.run(&["user", "create", "--username", "jon"]).await;
    world.run(&["share", "add", "--chute", id, "--user", "jon"]).await;
    world.run(&["share", "add", "--chute", id, "--user", "jon"]).await;
    assert_eq!(count(&world, "shares").await, 1);
    world.run(&["share", "remove", "--chute", id, "--user", "jon"]).await;
    let again = world.fail(&["share", "remove", "--chute", id, "--user", "jon"]).await;
    assert_eq!(again, "the chute is not shared with this user");
    assert_eq!(world.fail(&["share", "add", "--chute", id, "--user", "eve"]).await, "there is no user eve");
    assert_eq!(world.fail(&["share", "add", "--chute", "no", "--user", "jon"]).await, "there is no chute no");
}

#[tokio::test]
async fn an_instance_key_rests_sealed_and_an_address_belongs_to_one_instance() {
    let world = World::new().await;
    let chute = world.chute("org/model").await;
    let made = world.instance(&chute, 9001).await;
    let (sealed, version): (String, i64) =
        sqlx::query_as("select sealed_key, version from instances").fetch_one(&world.state.db).await.unwrap();
    assert!(!sealed.contains(INSTANCE_KEY));
    let key = DirectoryKey::from_hex(DATABASE_KEY).unwrap();
    let id = made["instance_id"].as_str().unwrap();
    let opened = key.open(&SealedKey(sealed), id.parse().unwrap(), version.try_into().unwrap()).unwrap();
    assert_eq!(opened.reveal_hex(), INSTANCE_KEY);
    let add = |chute: &str, host: &str, port: &str, key: &str| {
        let words = ["instance", "add", "--chute", chute, "--host", host, "--port", port, "--miner-uid", "7"];
        words
            .map(str::to_owned)
            .into_iter()
            .chain(["--hotkey", ALICE, "--key", key].map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let cases = [
        (add("chutes-org-model", "127.0.0.1", "9001", INSTANCE_KEY), "the address is another instance's"),
        (add("no-such", "127.0.0.1", "9002", INSTANCE_KEY), "there is no chute no-such"),
        (add("chutes-org-model", "a b", "9002", INSTANCE_KEY), "a host is an IP address or a DNS name"),
        (add("chutes-org-model", "127.0.0.1", "0", INSTANCE_KEY), "--port"),
        (add("chutes-org-model", "127.0.0.1", "9002", "00"), "a key is 32 hex digits"),
    ];
    for (words, reason) in cases {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let failure = world.fail(&words).await;
        assert!(failure.contains(reason), "{failure}");
        assert!(!failure.contains(INSTANCE_KEY), "{failure}");
    }
    world.run(&["instance", "remove", "--instance", id]).await;
    assert_eq!(world.fail(&["instance", "remove", "--instance", id]).await, format!("there is no instance {id}"));
}

#[tokio::test]
async fn an_alias_is_set_changed_and_removed() {
    let world = World::new().await;
    world.run(&["alias", "set", "--alias", "gpt", "--name", "org/a"]).await;
    world.run(&["alias", "set", "--alias", "gpt", "--name", "org/b"]).await;
    let name: String = sqlx::query_scalar("select name from aliases").fetch_one(&world.state.db).await.unwrap();
    assert_eq!(name, "org/b");
    world.run(&["alias", "remove", "--alias", "gpt"]).await;
    assert_eq!(world.fail(&["alias", "remove", "--alias", "gpt"]).await, "there is no alias gpt");
    let empty = world.fail(&["alias", "set", "--alias", "", "--name", "org/a"]).await;
    assert_eq!(empty, "an alias and its name have 1 to 128 characters");
}

#[tokio::test]
async fn the_operator_insists_for_a_minute() {
    let world = World::new().await;
    for noun in ["directory", "principals"] {
        let forced = world.run(&[noun, "force"]).await;
        let until: chrono::DateTime<chrono::Utc> = forced["forced_until"].as_str().unwrap().parse().unwrap();
        let left = until - world.state.clock.now();
        assert!((55..=60).contains(&left.num_seconds()), "{left}");
        assert!(world.fail(&[noun, "lift"]).await.contains("unrecognized subcommand"));
    }
}
