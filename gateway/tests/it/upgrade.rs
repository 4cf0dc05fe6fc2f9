//! One gateway process replaces another while clients are being served.

use std::fs::Permissions;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use protocol::usage::Outcome;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::{Mutex, mpsc, watch};

use crate::client::{Raw, ask, chat, content, request};
use crate::edge::browser;
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Process, Wishes};
use crate::redis_states::State;

const CHAT: &str = "/v1/chat/completions";
const DONE: &str = "data: [DONE]\n\n";

/// The words of the two processes.
const ASK: &[u8] = b"ask/1  \n";
const GIVE: &[u8] = b"give/1 \n";

async fn platform(instances: &[&Scripted], linger: &str) -> Platform {
    let settings = vec!["--linger".into(), linger.into()];
    Platform::start(instances, Wishes { settings, ..Wishes::default() }).await
}

async fn models(platform: &Platform) -> u16 {
    ask(platform, "GET", "llm", "/v1/models", "").await.status
}

fn fed() -> (Act, mpsc::Sender<String>) {
    let (sender, receiver) = mpsc::channel(16);
    (Act::Fed(Arc::new(Mutex::new(receiver))), sender)
}

#[tokio::test]
async fn streams_of_both_versions_run_to_their_end_in_the_process_that_is_replaced() {
    let ((first, to_first), (second, to_second)) = (fed(), fed());
    let instance = Scripted::start([first, second]).await;
    let mut platform = platform(&[&instance], "0.2").await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    to_first.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    let host = format!("llm.{DOMAIN}");
    let call = browser(&platform, &host, true).post(format!("https://{host}:{}{CHAT}", platform.https));
    to_second.send(content("one")).await.unwrap();
    let mut http2 = call.bearer_auth(&platform.key).body(chat(true)).send().await.unwrap();
    assert_eq!(http2.version(), reqwest::Version::HTTP_2);
    assert!(http2.chunk().await.unwrap().is_some());

    let mut old = platform.upgrade().await;
    assert_eq!(models(&platform).await, 200, "the next process serves");
    for pieces in [&to_first, &to_second] {
        pieces.send(content("two")).await.unwrap();
        pieces.send(DONE.into()).await.unwrap();
    }
    drop((to_first, to_second));
    raw.read_until("[DONE]").await;
    let mut rest = Vec::new();
    while let Some(piece) = http2.chunk().await.unwrap() {
        rest.extend_from_slice(&piece);
    }
    assert!(rest.ends_with(DONE.as_bytes()));
    assert!(old.ended().await, "the old process ends when its clients have left");
    assert_eq!(models(&platform).await, 200);
    let records = platform.records(2).await;
    let seen: Vec<_> = records.iter().map(|record| (record.outcome, record.facts.tokens)).collect();
    assert_eq!(seen, [(Outcome::Finished, 2); 2]);
}

#[tokio::test]
async fn an_idle_connection_is_answered_once_more_and_closed() {
    let mut platform = platform(&[], "30").await;
    let question = request(&platform, "GET", "llm", "/v1/models", "");
    let mut idle = Raw::connect(&platform).await;
    idle.send(&question).await;
    assert_eq!(idle.answer().await.field("connection"), Some("keep-alive"));
    let _old = platform.upgrade().await;
    // The old process goes on as before until it has read that it is replaced.
    loop {
        idle.send(&question).await;
        let answer = idle.answer().await;
        assert_eq!(answer.status, 200);
        if answer.field("connection") == Some("close") {
            break;
        }
    }
    assert!(idle.closes().await);
}

#[tokio::test]
async fn an_idle_connection_that_asks_nothing_is_closed_after_some_time() {
    let mut platform = platform(&[], "0.2").await;
    let mut idle = Raw::connect(&platform).await;
    idle.send(&request(&platform, "GET", "llm", "/v1/models", "")).await;
    idle.answer().await;
    let mut old = platform.upgrade().await;
    assert!(idle.closes().await);
    assert!(old.ended().await);
}

#[tokio::test]
async fn a_stream_without_end_does_not_keep_the_process_that_is_replaced_for_ever() {
    let (act, pieces) = fed();
    let instance = Scripted::start([act]).await;
    let settings = ["--linger", "0.1", "--upgrade-drain", "0.5"].map(str::to_owned).into();
    let mut platform = Platform::start(&[&instance], Wishes { settings, ..Wishes::default() }).await;
    let mut raw = Raw::connect(&platform).await;
    raw.send(&request(&platform, "POST", "llm-chute", CHAT, &chat(true))).await;
    pieces.send(content("one")).await.unwrap();
    raw.read_until("one").await;
    assert!(platform.upgrade().await.ended().await);
    assert_eq!(models(&platform).await, 200);
}

#[tokio::test]
async fn callers_on_new_connections_notice_nothing() {
    let mut platform = platform(&[], "0.2").await;
    let (port, question) = (platform.http, request(&platform, "GET", "llm", "/v1/models", ""));
    let (stop, mut stopping) = watch::channel(false);
    let calling = async {
        let mut statuses = Vec::new();
        while !*stopping.borrow_and_update() {
            let mut raw = Raw::at(port).await;
            raw.send(&question).await;
            statuses.push(raw.answer().await.status);
        }
        statuses
    };
    let upgrading = async {
        for _ in 0..2 {
            assert!(platform.upgrade().await.ended().await);
        }
        stop.send_replace(true);
    };
    let (statuses, ()) = tokio::join!(calling, upgrading);
    assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn a_gateway_that_was_not_to_replace_another_refuses_to_start() {
    let platform = platform(&[], "0.2").await;
    let mut second = platform.start_another(&[]);
    assert!(!second.ended().await);
    let log = second.log();
    assert!(log.contains("start with --upgrade"), "{log}");
    assert_eq!(models(&platform).await, 200);
}

#[tokio::test]
async fn a_next_gateway_that_cannot_become_healthy_leaves_the_running_one_alone() {
    let mut platform = platform(&[], "0.2").await;
    let unreachable = ["--upgrade", "--redis-url", "redis://127.0.0.1:9/?protocol=resp3", "--upgrade-within", "0.5"];
    let mut next = platform.start_another(&unreachable);
    assert!(!next.ended().await);
    let log = next.log();
    assert!(log.contains("not healthy in time: the directory has not come yet"), "{log}");
    assert_eq!(models(&platform).await, 200);
    platform.upgrade().await.ended().await;
    assert_eq!(models(&platform).await, 200);
}

#[tokio::test]
async fn a_next_gateway_that_cannot_take_leases_leaves_the_running_one_alone() {
    let mut platform = platform(&[], "0.2").await;
    // The directory and the principals can be read, but no beat be written.
    let end = State::WithoutMemory.begin(&mut platform.redis);
    let mut next = platform.start_another(&["--upgrade", "--upgrade-within", "2"]);
    assert!(!next.ended().await);
    let log = next.log();
    assert!(log.contains("not healthy in time: leases were never taken from redis"), "{log}");
    assert_eq!(models(&platform).await, 200);
    end(&mut platform.redis);
    platform.upgrade().await.ended().await;
    assert_eq!(models(&platform).await, 200);
}

#[tokio::test]
async fn a_next_gateway_whose_hand_over_folder_is_not_private_any_more_leaves_the_running_one_alone() {
    let mut platform = platform(&[], "0.2").await;
    let folder = platform.upgrade_socket().parent().unwrap().to_owned();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let mut next = platform.start_another(&["--upgrade"]);
    assert!(!next.ended().await);
    let log = next.log();
    assert!(log.contains("the hand-over socket needs a folder with mode 0700"), "{log}");
    assert_eq!(models(&platform).await, 200);
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    platform.upgrade().await.ended().await;
    assert_eq!(models(&platform).await, 200);
}

#[tokio::test]
async fn a_next_gateway_that_dies_in_the_middle_leaves_the_running_one_in_charge() {
    let mut platform = platform(&[], "0.2").await;
    for said in [&b""[..], &ASK[..3], ASK] {
        let mut next = UnixStream::connect(platform.upgrade_socket()).unwrap();
        next.write_all(said).unwrap();
        if said == ASK {
            let mut word = [0; 8];
            // Sockets that come with it and are not taken are closed.
            next.read_exact(&mut word).unwrap();
            assert_eq!(word, GIVE);
        }
        drop(next);
        assert_eq!(models(&platform).await, 200);
    }
    platform.upgrade().await.ended().await;
    assert_eq!(models(&platform).await, 200);
}

/// What a running gateway does that the test stands in for.
#[derive(PartialEq)]
enum Does {
    DiesBeforeItGives,
    DiesAfterItGave,
    KeepsItsSockets,
}

/// Stands in for the running gateway, which it kills, and starts the next one.
async fn stand_in(platform: &mut Platform, does: Does) -> (Process, Option<UnixListener>) {
    platform.kill().await;
    std::fs::remove_file(platform.upgrade_socket()).unwrap();
    let running = UnixListener::bind(platform.upgrade_socket()).unwrap();
    let next = platform.start_another(&["--upgrade"]);
    let ports = [platform.http, platform.https];
    let talk = move || {
        // First it only looks whether somebody answers.
        drop(running.accept().unwrap());
        let (mut stream, _) = running.accept().unwrap();
        let mut word = [0; 8];
        stream.read_exact(&mut word).unwrap();
        assert_eq!(word, ASK);
        if does == Does::DiesAfterItGave {
            give(&stream, &ports.map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()));
        }
        (does == Does::KeepsItsSockets).then_some(running)
    };
    let running = tokio::task::spawn_blocking(talk).await.unwrap();
    (next, running)
}

fn give(stream: &UnixStream, sockets: &[TcpListener]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(stream, &[IoSlice::new(GIVE)], &mut control, SendFlags::empty()).unwrap();
}

#[tokio::test]
async fn a_running_gateway_that_dies_in_the_middle_leaves_the_next_one_in_charge() {
    for does in [Does::DiesBeforeItGives, Does::DiesAfterItGave] {
        let mut platform = platform(&[], "0.2").await;
        let (next, _) = stand_in(&mut platform, does).await;
        platform.continue_with(next).await;
        assert_eq!(models(&platform).await, 200);
        platform.upgrade().await.ended().await;
        assert_eq!(models(&platform).await, 200);
    }
}

#[tokio::test]
async fn a_running_gateway_that_keeps_its_sockets_sends_the_next_one_away() {
    let mut platform = platform(&[], "0.2").await;
    let (mut next, _running) = stand_in(&mut platform, Does::KeepsItsSockets).await;
    assert!(!next.ended().await);
    let log = next.log();
    assert!(log.contains("the running gateway keeps its sockets"), "{log}");
}

#[tokio::test]
async fn a_stale_hand_over_socket_is_no_obstacle() {
    let mut platform = platform(&[], "0.2").await;
    platform.kill().await;
    assert!(platform.upgrade_socket().exists());
    platform.upgrade().await;
    assert_eq!(models(&platform).await, 200);
    platform.kill().await;
    let next = platform.start_another(&[]);
    platform.continue_with(next).await;
    assert_eq!(models(&platform).await, 200);
}
