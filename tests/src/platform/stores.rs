//! What remembers: PostgreSQL, Redis and the object store, started together.

use anyhow::Context;

use crate::children::Spawner;
use crate::ports::Ports;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::redis::{Redis, User};
use crate::sample::Sample;
use crate::secrets::Secrets;
use crate::store::Store;

/// The running stores.
pub(super) struct Stores {
    pub(super) postgres: Postgres,
    pub(super) redis: Redis,
    pub(super) redis_proxy: Option<Proxy>,
    pub(super) store: Store,
}

impl Stores {
    pub(super) async fn start(
        options: &super::Options,
        secrets: &Secrets,
        ports: &mut Ports,
        spawner: &Spawner,
    ) -> anyhow::Result<Self> {
        let (folder, say) = (&options.folder, options.progress);
        say("starting PostgreSQL");
        let port = ports.claim("postgres")?;
        let postgres = Postgres::start(folder, &options.state, port, secrets, spawner).await?;
        if !Sample::is_in(folder) {
            // A first start that was interrupted leaves half of it, and nobody has its keys.
            postgres.empty(secrets).await.context("emptying the database")?;
        }
        say("starting Redis");
        let redis = Redis::start(folder, options.durable_redis, ports.claim("redis")?, secrets, spawner).await?;
        let redis_proxy = if options.freezable_redis {
            Some(Proxy::start(ports.claim("redis-proxy")?, redis.port).await?)
        } else {
            None
        };
        say("starting the object store");
        let store = Store::start(folder, ports.claim("store")?, secrets).await?;
        Ok(Self { postgres, redis, redis_proxy, store })
    }

    /// Where gateways reach Redis.
    pub(super) fn redis_url_of_gateways(&self) -> String {
        let port = self.redis_proxy.as_ref().map_or(self.redis.port, |proxy| proxy.port);
        self.redis.url_through(User::Gateway, port)
    }
}
