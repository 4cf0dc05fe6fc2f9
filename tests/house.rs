//! Checks the rules of the house that a script can check, by reading the tree.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file that is not a test.
const LONGEST: usize = 400;

/// What may stand at the top of the tree.
const TOP_LEVEL: [&str; 20] = [
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    ".local",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "ansible",
    "clippy.toml",
    "control",
    "dashboards",
    "deny.toml",
    "gateway",
    "graval",
    "registry",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];

/// Floors of control, from the top; a module imports only from its own floor's files or from below.
const FLOORS: [&[&str]; 5] =
    [&["main", "lib", "admin"], &["http", "socket"], &["forge", "verify", "task"], &["db", "clients"], &["domain"]];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the workspace").to_owned()
}

/// Every file of the tree that is ours, with its path from the root.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".local", ".sqlx", "evidence", "__pycache__"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let short = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((short, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the tree was not found");
    found
}

fn sources() -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// Whether a source file holds only tests.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/flows/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || ["tests/house.rs", "tests/dashboards.rs"].contains(&path)
}

/// The part of a source file before its tests.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

fn fail_on(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_top_level_holds_only_what_the_map_names() {
    let allowed: BTreeSet<&str> = TOP_LEVEL.into_iter().chain([".git", "target", "tests"]).collect();
    let strangers: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !allowed.contains(name.as_str()))
        .collect();
    fail_on("not on the map of the README", &strangers);
}

#[test]
fn source_files_are_short_and_say_what_they_are_for() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!") {
            broken.push(format!("{path}: the first line must be `//!` and one sentence"));
        }
        let lines = production(&text).lines().count();
        if !is_test(&path) && lines > LONGEST {
            broken.push(format!("{path}: {lines} lines, at most {LONGEST}"));
        }
    }
    fail_on("two rooms in one file, or a room without a name", &broken);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let broken: Vec<String> = files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            path.ends_with("/mod.rs")
                || Path::new(path).components().any(|part| {
                    let part = part.as_os_str().to_string_lossy();
                    EMPTY_NAMES.contains(&part.split('.').next().unwrap())
                })
        })
        .collect();
    fail_on("name the subject", &broken);
}

#[test]
fn sql_lives_on_one_floor() {
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|(path, _)| !is_test(path) && !path.starts_with("control/src/db"))
        .filter(|(path, text)| {
            let text = production(text);
            let writes = ["sqlx::query", "query!(", "query_as!(", "query_scalar!("];
            let reads_for_tests = path.starts_with("tests/src/");
            !reads_for_tests && writes.iter().any(|mark| text.contains(mark))
        })
        .map(|(path, _)| path)
        .collect();
    fail_on("SQL outside control/src/db", &broken);
}

#[test]
fn only_control_and_the_tests_know_postgres() {
    let broken: Vec<String> = files()
        .into_iter()
        .filter(|(path, _)| {
            path.ends_with("Cargo.toml")
                && !["Cargo.toml", "control/Cargo.toml", "tests/Cargo.toml"].contains(&path.as_str())
        })
        .filter(|(_, text)| text.contains("sqlx"))
        .map(|(path, _)| path)
        .collect();
    fail_on("a crate that must not reach Postgres", &broken);
}

#[test]
fn redis_names_stand_in_one_file() {
    let names = [
        "\"usage:",
        "\"directory:",
        "\"principals:",
        "\"funds:",
        "\"hotkey:",
        "\"lease:",
        "\"load:",
        "\"signature:",
        "\"idempotent:",
        "\"strikes\"",
    ];
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|(path, _)| path != "control/protocol/src/keys.rs" && path != "tests/house.rs" && !is_test(path))
        .flat_map(|(path, text)| {
            names
                .into_iter()
                .filter(|name| production(&text).contains(name))
                .map(|name| format!("{path}: {name}"))
                .collect::<Vec<_>>()
        })
        .collect();
    fail_on("a Redis name outside protocol::keys", &broken);
}

#[test]
fn control_imports_only_downwards() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let Some(inside) = path.strip_prefix("control/src/") else { continue };
        let module = inside.split(['/', '.']).next().unwrap();
        let Some(floor) = FLOORS.iter().position(|floor| floor.contains(&module)) else { continue };
        for above in FLOORS.iter().take(floor).flat_map(|floor| floor.iter()) {
            if production(&text).contains(&format!("crate::{above}::")) {
                broken.push(format!("{path} imports from {above}"));
            }
        }
        if module == "http" && production(&text).contains("crate::task::") {
            broken.push(format!("{path} calls a task; it nudges"));
        }
    }
    fail_on("an import upwards", &broken);
}

#[test]
fn settings_are_read_in_one_file_and_each_says_what_it_is() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if !path.ends_with("config.rs")
            && !is_test(&path)
            && (text.contains("env::var(") || text.contains("env::var_os("))
        {
            broken.push(format!("{path} reads the environment"));
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("#[arg(")) {
            let documented = lines[..number]
                .iter()
                .rev()
                .find(|line| !line.starts_with("#["))
                .is_some_and(|line| line.starts_with("///"));
            if !documented {
                broken.push(format!("{path}:{}: {line} has no doc line", number + 1));
            }
        }
    }
    fail_on("settings", &broken);
}

#[test]
fn metrics_carry_the_name_of_their_program() {
    let mut broken = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.contains("/src/metrics")) {
        let program = path.split('/').next().unwrap();
        let names: Vec<&str> = text.split('"').filter(|part| part.starts_with("chutes_")).collect();
        assert!(!names.is_empty() || path.contains("metrics/"), "{path}: no metric was found");
        let strangers = names.iter().filter(|name| !name.starts_with(&format!("chutes_{program}_")));
        broken.extend(strangers.map(|name| format!("{path}: {name}")));
    }
    fail_on("a metric without `chutes_<program>_`", &broken);
}

#[test]
fn log_messages_are_lower_case_without_a_final_period() {
    let mut broken = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        for level in ["error!(", "warn!(", "info!(", "debug!("] {
            for call in text.split(level).skip(1) {
                let end = call.find(");").unwrap_or(call.len());
                let Some(message) = call[..end].split('"').nth(1) else { continue };
                if message.starts_with(|first: char| first.is_uppercase()) || message.ends_with('.') {
                    broken.push(format!("{path}: {message:?}"));
                }
            }
        }
    }
    fail_on("log messages", &broken);
}

#[test]
fn no_release_build_can_be_told_another_time() {
    let settings = fs::read_to_string(root().join("gateway/src/config.rs")).unwrap();
    let before = settings.split("pub clock_offset").next().unwrap();
    let own = before.rsplit("\n\n").next().unwrap();
    assert!(own.contains("#[cfg(debug_assertions)]"), "the setting of the clock is in every build: {own}");
}

#[test]
fn no_slow_hash_stands_on_the_call_path() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["argon2", "bcrypt", "scrypt"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "S16: {name} is in the lock file");
    }
}

#[test]
fn there_is_one_cache_store() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["memcache", "memcached", "bmemcached", "async-memcached"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "C23: {name} is in the lock file");
    }
}

#[test]
fn nobody_reads_pickle_in_rust() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(!lock.contains("name = \"serde-pickle\""), "pickle is written by protocol::envelope and read by nobody");
}

#[test]
fn each_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut explained = false;
    let mut broken = Vec::new();
    for line in section.lines() {
        match line.chars().next() {
            None => explained = false,
            Some('#') => explained = true,
            Some(_) if !explained => broken.push(line.to_owned()),
            Some(_) => {}
        }
    }
    fail_on("a dependency without a comment", &broken);
}

#[test]
fn the_tree_names_no_machine_and_no_registry_host() {
    let marks = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("static.", "crates.io"),
        concat!("pypi", ".org"),
        concat!("npmjs", "."),
    ];
    let broken: Vec<String> = files()
        .into_iter()
        .filter(|(path, _)| path != "Cargo.lock")
        .flat_map(|(path, text)| {
            marks
                .into_iter()
                .filter(|mark| text.contains(mark))
                .map(|mark| format!("{path}: {mark}"))
                .collect::<Vec<_>>()
        })
        .collect();
    fail_on("the surroundings of a developer", &broken);
}
