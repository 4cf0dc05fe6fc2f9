//! Four gateways on one Redis keep limits together, also while Redis is silent or comes back empty.

mod allowance;
mod at_once;
mod rates;

use std::time::Duration;

use reqwest::StatusCode;
use stack::miner::Engine;
use stack::screen;
use tokio::time::{Instant, sleep};

use crate::scene::{Scene, User};

const GATEWAYS: usize = 4;
const LONGEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Permission bit of those who have no allowance to use up.
const FREE: &str = "16";
/// What gateways share the limits of: calls per minute and at once, calls a day, places on instances.
const LIMITS: [&str; 3] = ["caller", "quota", "instance"];

/// Decisions about each of the limits at all gateways so far: without a question to Redis, and with one.
#[derive(Clone, Copy)]
struct Decisions([[u64; 2]; 3]);

impl Decisions {
    async fn read(scene: &Scene) -> Self {
        let mut sums = [[0; 2]; 3];
        for gateway in 0..GATEWAYS {
            for (sums, limit) in sums.iter_mut().zip(LIMITS) {
                for (sum, way) in sums.iter_mut().zip(["local", "asked"]) {
                    let name = format!("chutes_gateway_limit_decisions_total{{limit=\"{limit}\",way=\"{way}\"}}");
                    *sum += metric(scene, gateway, &name).await;
                }
            }
        }
        Self(sums)
    }

    /// The decisions since then.
    async fn since(self, scene: &Scene, which: &str) -> Self {
        let mut since = Self::read(scene).await;
        for (limit, (now, before)) in since.0.iter_mut().zip(self.0).enumerate() {
            now.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
            let [local, asked] = *now;
            screen::say(&format!(
                "{which}, limit {}: {local} decisions without a round trip, {asked} with one",
                LIMITS[limit]
            ));
        }
        screen::say(&format!("{which}: {:.2} % of all decisions without a round trip", 100.0 * part(&since.0)));
        since
    }
}

/// The part of such decisions that needed no question to Redis.
fn part(by_way: &[[u64; 2]]) -> f64 {
    let [local, asked] = [0, 1].map(|way| by_way.iter().map(|by_way| by_way[way]).sum::<u64>());
    local as f64 / (local + asked) as f64
}

/// A platform whose gateways know each other and share.
async fn scene() -> Scene {
    let scene = Scene::with(|options| {
        options.gateways = GATEWAYS;
        // Callers stay known for as long as Redis is silent.
        options.gateway_settings.push(("GATEWAY_STALE_AFTER".into(), "900".into()));
    })
    .await;
    wait_until_shared(&scene, 1).await;
    scene
}

/// Addresses of a text chute's list of models, which its instances answer at once.
fn urls(scene: &Scene) -> Vec<String> {
    let slug = &scene.sample(Engine::Vllm).slug;
    (0..GATEWAYS).map(|number| format!("{}/v1/models", scene.url_at(slug, number))).collect()
}

/// A user with a quota whom all gateways know; each of them has let him make a call.
async fn known_user(scene: &mut Scene, name: &str, quota: u32, more: &[&str]) -> User {
    let user = scene.user(name, quota, more).await;
    for url in urls(scene) {
        let deadline = Instant::now() + LONGEST;
        while scene.client().get(&url).bearer_auth(&user.key).send().await.unwrap().status() != StatusCode::OK {
            assert!(Instant::now() < deadline, "a gateway does not know the user");
            sleep(POLL).await;
        }
    }
    user
}

/// A number out of a gateway's metrics.
async fn metric(scene: &Scene, gateway: usize, line: &str) -> u64 {
    let url = format!("{}/metrics", scene.platform.gateways[gateway].internal_url());
    let request = scene.client().get(url).bearer_auth(&scene.platform.secrets.internal).timeout(LONGEST);
    let text = request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or(0)
}

/// Waits until each gateway is given slots, or none is; and until each knows all.
async fn wait_until_shared(scene: &Scene, shared: u64) {
    let deadline = Instant::now() + LONGEST;
    for gateway in 0..GATEWAYS {
        while metric(scene, gateway, "chutes_gateway_lease_redis ").await != shared
            || metric(scene, gateway, "chutes_gateway_lease_gateways ").await != GATEWAYS as u64
        {
            assert!(Instant::now() < deadline, "gateway {gateway} does not notice");
            sleep(POLL).await;
        }
    }
}
