//! Credentials are checked against what control published, and a signature is good once.

use std::time::Duration;

use futures::future::join_all;
use gateway::auth::{Caller, Presented, Via};
use gateway::clock::Clock;
use gateway::refusal::Refusal;
use protocol::credential::ApiKey;
use protocol::keys::Key;
use protocol::principal::{HotkeyEntry, UserEntry};
use protocol::signing::{Covers, Keypair, inward_message};

use crate::who::{Who, entry, eventually, signer, user};

/// A signed request as it arrives.
#[derive(Clone)]
struct Signed {
    hotkey: String,
    nonce: String,
    signature: String,
}

impl Signed {
    fn by(keypair: &Keypair, nonce: i64, covers: Covers<'_>) -> Self {
        let message = inward_message(keypair.hotkey(), &nonce.to_string(), covers);
        let signature = keypair.sign(message.as_bytes()).to_string();
        Self { hotkey: keypair.hotkey().to_string(), nonce: nonce.to_string(), signature }
    }

    async fn identify(&self, who: &Who, covers: Covers<'_>) -> Result<Caller, Refusal> {
        let Self { hotkey, nonce, signature } = self.clone();
        who.auth.identify(Presented::Signed { hotkey, nonce, signature }, covers).await
    }
}

fn now() -> i64 {
    Clock::default().now().timestamp()
}

/// Publishes a user with this hotkey.
fn publish_hotkey(who: &Who, keypair: &Keypair) -> UserEntry {
    let user = user();
    who.publish(&Key::user(user.id), 1, &user);
    who.publish(&Key::hotkey(keypair.hotkey()), 1, &HotkeyEntry { user: Some(user.id) });
    user
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_two_hundred_requests_signed_in_one_second_pass_and_each_sent_again_is_refused() {
    let who = Who::start().await;
    let keypair = Keypair::from_seed([1; 32]);
    let user = publish_hotkey(&who, &keypair);
    let (nonce, purpose) = (now(), Covers::Purpose("chutes"));
    let signed: Vec<Signed> = (0..200).map(|_| Signed::by(&keypair, nonce, purpose)).collect();
    let first = join_all(signed.iter().map(|signed| signed.identify(&who, purpose))).await;
    for result in first {
        let Ok(caller) = result else { panic!("the first use is refused") };
        assert_eq!((caller.user.id, caller.via), (user.id, Via::Hotkey(keypair.hotkey().clone())));
    }
    let again = join_all(signed.iter().map(|signed| signed.identify(&who, purpose))).await;
    assert!(again.into_iter().all(|result| result.err() == Some(Refusal::ReplayedSignature)));
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_one_signature_sent_at_once_many_times_passes_once() {
    let who = Who::start().await;
    let keypair = Keypair::from_seed([1; 32]);
    publish_hotkey(&who, &keypair);
    let signed = Signed::by(&keypair, now(), Covers::Body(b"{}"));
    let upper = Signed { signature: format!("0x{}", signed.signature.to_uppercase()), ..signed.clone() };
    let attempts = (0..50).map(|number| if number % 2 == 0 { &signed } else { &upper });
    let results = join_all(attempts.map(|signed| signed.identify(&who, Covers::Body(b"{}")))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_does_not_spend_its_signature() {
    let who = Who::start().await;
    who.publish_complete(1, 0, 0);
    let keypair = Keypair::from_seed([1; 32]);
    let body = Covers::Body(b"{\"a\":1}");
    let signed = Signed::by(&keypair, now(), body);
    let stored = || redis::cmd("DBSIZE").query::<u64>(&mut who.redis.connection()).unwrap();
    let refused = signed.identify(&who, body).await.err();
    assert_eq!(refused, Some(Refusal::InvalidCredential("no account has this hotkey")));
    publish_hotkey(&who, &keypair);
    assert!(signed.identify(&who, Covers::Body(b"{\"a\":2}")).await.is_err());
    let before = stored();
    eventually("the very signature passes", async || signed.identify(&who, body).await.is_ok()).await;
    assert_eq!(stored(), before + 1);
    assert_eq!(signed.identify(&who, body).await.err(), Some(Refusal::ReplayedSignature));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_nonce_and_a_foreign_signature_are_refused() {
    let who = Who::start().await;
    let (keypair, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
    publish_hotkey(&who, &keypair);
    let purpose = Covers::Purpose("chutes");
    let old = Signed::by(&keypair, now() - 601, purpose).identify(&who, purpose).await;
    assert_eq!(old.err(), Some(Refusal::InvalidCredential("the nonce is not a recent time")));
    let foreign = Signed { hotkey: keypair.hotkey().to_string(), ..Signed::by(&other, now(), purpose) };
    let refused = foreign.identify(&who, purpose).await.err();
    assert_eq!(refused, Some(Refusal::InvalidCredential("the signature does not fit")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_no_signature_is_accepted() {
    let mut who = Who::start().await;
    let keypair = Keypair::from_seed([1; 32]);
    publish_hotkey(&who, &keypair);
    let purpose = Covers::Purpose("chutes");
    let identify = async || Signed::by(&keypair, now(), purpose).identify(&who, purpose).await;
    assert!(identify().await.is_ok());
    who.redis.freeze();
    assert!(matches!(identify().await.err(), Some(Refusal::NotReady(_))));
    who.redis.thaw();
    eventually("signatures pass again", async || identify().await.is_ok()).await;
    who.redis.kill();
    let refused = Signed::by(&keypair, now(), purpose).identify(&who, purpose).await.err();
    assert!(matches!(refused, Some(Refusal::NotReady(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_time_or_its_generation() {
    let who = Who::start().await;
    let user = user();
    who.publish(&Key::user(user.id), 1, &user);
    let now = Clock::default().now();
    let week = Duration::from_secs(7 * 86_400);
    let token = signer().sign(user.id, 0, now, week);
    let identify = async |token: &str| who.auth.identify(Presented::Session(token.into()), Covers::Body(b"")).await;
    assert_eq!(identify(&token).await.map(|caller| caller.via).ok(), Some(Via::Session));
    let expired = signer().sign(user.id, 0, now - week, Duration::from_secs(1));
    assert_eq!(identify(&expired).await.err(), Some(Refusal::ExpiredSession));
    assert_eq!(identify("a.b.c").await.err(), Some(Refusal::InvalidCredential("invalid token")));
    who.publish(&Key::user(user.id), 2, &UserEntry { generation: 1, ..user.clone() });
    let ended = Some(Refusal::InvalidCredential("the session was ended"));
    eventually("the session was ended", async || identify(&token).await.err() == ended).await;
    assert!(identify(&signer().sign(user.id, 1, now, week)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_wrong_secret_is_refused_like_an_unknown_one() {
    let who = Who::start().await;
    who.publish_complete(1, 1, 1);
    let key = who.publish_caller();
    let user = who.identify(&key).await.unwrap().user;
    let stolen_id = key.reveal().replace(&key.reveal()[key.reveal().len() - 32..], &"x".repeat(32));
    let forged = who.identify(&ApiKey::parse(&stolen_id).unwrap()).await.err();
    let unknown = who.identify(&ApiKey::generate(user.id)).await.err();
    assert_eq!(forged, unknown);
    assert_eq!(forged, Some(Refusal::InvalidCredential("unknown API key")));
    // A key whose entry names another user's hash never matches either.
    let other = ApiKey::generate(user.id);
    who.publish(&Key::api_key(other.id()), 1, &entry(&key, false));
    eventually("the entry is seen", async || who.principals.key(other.id()).await.unwrap().is_some()).await;
    assert_eq!(who.identify(&other).await.err(), unknown);
}
