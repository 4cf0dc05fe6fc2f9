//! Calls that a hotkey signs, through the real executable.

use gateway::clock::Clock;
use protocol::keys::Key;
use protocol::principal::{FundsEntry, HotkeyEntry, UserEntry};
use protocol::signing::{Covers, Keypair, inward_message};

use crate::client::{Answer, Raw};
use crate::instance::{Act, Scripted};
use crate::platform::{DOMAIN, Platform, Wishes};
use crate::who::{publish, user};

const BODY: &str = "{}";

fn now() -> i64 {
    Clock::default().now().timestamp()
}

/// Publishes a user with this hotkey.
fn publish_hotkey(platform: &Platform, keypair: &Keypair, user: &UserEntry) {
    let redis = &mut platform.redis.connection();
    let funds = FundsEntry { balance: 0, day: Clock::default().now().date_naive(), used: [].into(), marks: [].into() };
    publish(redis, &Key::user(user.id), 1, user);
    publish(redis, &Key::funds(user.id), 1, &funds);
    publish(redis, &Key::hotkey(keypair.hotkey()), 1, &HotkeyEntry { user: Some(user.id) });
}

fn sign(keypair: &Keypair, nonce: i64, body: &str) -> String {
    let message = inward_message(keypair.hotkey(), &nonce.to_string(), Covers::Body(body.as_bytes()));
    keypair.sign(message.as_bytes()).to_string()
}

/// The head of a call that sends its body when it is asked to.
fn head(hotkey: &str, nonce: i64, signature: &str) -> String {
    format!(
        "POST /run HTTP/1.1\r\nHost: own-chute.{DOMAIN}\r\nX-Chutes-Hotkey: {hotkey}\r\nX-Chutes-Nonce: {nonce}\r\n\
         X-Chutes-Signature: {signature}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        BODY.len()
    )
}

/// Sends a head, and the body once it is asked for.
async fn call(platform: &Platform, head: &str) -> Answer {
    let mut raw = Raw::connect(platform).await;
    raw.send(head.as_bytes()).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(BODY.as_bytes()).await;
    raw.answer().await
}

#[tokio::test]
async fn s1_no_body_is_read_for_a_signature_that_cannot_be_right() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let [known, deleted, stranger] = [1, 2, 3].map(|seed| Keypair::from_seed([seed; 32]));
    publish_hotkey(&platform, &known, &user());
    publish_hotkey(&platform, &deleted, &UserEntry { deleted: true, ..user() });
    let (right, address) = (sign(&known, now(), BODY), known.hotkey().to_string());
    let wrong = [
        head(&address, now() - 601, &right),
        head(&address, now(), "00"),
        head("5G", now(), &right),
        head(stranger.hotkey().as_ref(), now(), &sign(&stranger, now(), BODY)),
        head(deleted.hotkey().as_ref(), now(), &sign(&deleted, now(), BODY)),
    ];
    for head in wrong {
        let mut raw = Raw::connect(&platform).await;
        raw.send(head.as_bytes()).await;
        assert_eq!(raw.answer().await.status, 401, "{head}");
    }
    let nonce = now();
    assert_eq!(call(&platform, &head(&address, nonce, &sign(&known, nonce, BODY))).await.status, 200);
}

#[tokio::test]
async fn s1_whoever_only_names_a_hotkey_uses_up_nothing_of_its_user() {
    let scripted = Scripted::start([Act::Json("1".into())]).await;
    let platform = Platform::start(&[&scripted], Wishes::default()).await;
    let keypair = Keypair::from_seed([1; 32]);
    publish_hotkey(&platform, &keypair, &UserEntry { rate_per_minute: Some(1), ..user() });
    let (nonce, address) = (now(), keypair.hotkey().to_string());
    for _ in 0..3 {
        let forged = head(&address, nonce, &sign(&keypair, nonce, "another body"));
        assert_eq!(call(&platform, &forged).await.status, 401);
    }
    let first = head(&address, nonce, &sign(&keypair, nonce, BODY));
    assert_eq!(call(&platform, &first).await.status, 200);
    let second = head(&address, nonce, &sign(&keypair, nonce, BODY));
    assert_eq!(call(&platform, &second).await.status, 429);
}
