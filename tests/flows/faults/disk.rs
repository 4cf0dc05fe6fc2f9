//! The disk of the record log full under load: new calls are refused, those in flight end, and then it goes on.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stack::miner::{Behaviour, Engine};
use stack::proof::Size;
use stack::screen;
use tokio::time::{Instant, sleep};

use super::{LONGEST, show, wait_until_known};
use crate::books;
use crate::load::{self, End, Load, Seen};
use crate::scene::{Scene, User};

const DISK: &str = "16m";
const CLIENTS: u64 = 8;
/// Chats that last until the disk is full and beyond.
const LONG_CHATS: u64 = 4;
const LONG_CHAT: u64 = 1000;
const TOKENS_PER_SECOND: f64 = 50.0;
const POLL: Duration = Duration::from_millis(50);

/// A file system of its own, as small as asked.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = fs::OpenOptions::new().append(true).create(true).open(self.ballast()).unwrap();
        loop {
            match ballast.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the gateways still have their logs open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn ask(scene: &Scene, user: &User, gateway: usize, tokens: u64) -> Seen {
    let model = &scene.sample(Engine::Vllm).model;
    load::ask(&scene.client(), &scene.url_at("llm", gateway), &user.key, model, tokens).await
}

/// Asks a gateway until a call ends as wanted, each time after `before`; what was seen on the way goes into the books too.
async fn until(scene: &Scene, user: &User, gateway: usize, (wanted, before): (End, impl Fn()), seen: &mut Vec<Seen>) {
    let deadline = Instant::now() + LONGEST;
    loop {
        before();
        let call = ask(scene, user, gateway, 1).await;
        let ended = call.end;
        seen.push(call);
        if ended == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "no call ends with {wanted:?}, the last with {ended:?}");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_calls_and_loses_none_of_those_in_flight() {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(root.path()) else {
        assert_eq!(Size::asked(), Size::Small, "a small disk cannot be mounted here (needs root)");
        screen::say("SKIPPED: a small disk cannot be mounted here (needs root)");
        return;
    };
    let mut scene = Scene::with(|options| {
        options.records = root.path().to_owned();
        let settings =
            [("GATEWAY_LOG_SEGMENT", "262144"), ("GATEWAY_MAX_CALLS", "128"), ("GATEWAY_LOG_KEEP_SECONDS", "1")];
        options.gateway_settings.extend(settings.map(|(name, value)| (name.into(), value.into())));
    })
    .await;
    let user = scene.unlimited_user("load", &[]).await;
    for gateway in 0..scene.gateways() {
        wait_until_known(&scene, gateway, &user).await;
    }
    let slow = Behaviour { tokens_per_second: TOKENS_PER_SECOND, ..Behaviour::default() };
    scene.behave(Engine::Vllm, &slow).await;
    let mut seen = Vec::new();
    for round in 0..Size::asked().pick(1, 10) {
        let load = Load::start(&scene, &user, CLIENTS, round);
        let long = (0..LONG_CHATS).map(|number| ask(&scene, &user, number as usize % scene.gateways(), LONG_CHAT));
        let filling = async {
            let mut seen = Vec::new();
            for gateway in 0..scene.gateways() {
                // Segments that are confirmed meanwhile leave room again.
                until(&scene, &user, gateway, (End::Refused(503), || disk.fill()), &mut seen).await;
            }
            disk.make_room();
            for gateway in 0..scene.gateways() {
                until(&scene, &user, gateway, (End::Whole, || ()), &mut seen).await;
            }
            seen
        };
        let (long, asked) = tokio::join!(futures::future::join_all(long), filling);
        assert!(long.iter().all(|call| (call.end, call.tokens) == (End::Whole, LONG_CHAT)), "{long:?}");
        let loaded = load.stop().await;
        let refused = |call: &&Seen| !matches!(call.end, End::Whole | End::Refused(503));
        assert!(loaded.iter().find(refused).is_none(), "{:?}", loaded.iter().find(refused));
        seen.extend(long.into_iter().chain(asked).chain(loaded));
    }
    show("disk full", &seen);
    books::balance(&mut scene, &user, &seen).await;
}
