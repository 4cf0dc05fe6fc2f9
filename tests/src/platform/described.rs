//! Describes a running platform for tools.

use std::collections::BTreeMap;

use super::{DOMAIN, Platform, keypair};
use crate::description::{Chute, Description, Gateway, Internal, Key, Keys, Redis, Store, Urls, User};
use crate::miner::Engine;
use crate::redis;
use crate::store::BUCKET;

impl Platform {
    /// What tools need to know of it, at this moment.
    ///
    /// # Errors
    /// When a seed is no seed.
    pub fn describe(&mut self) -> anyhow::Result<Description> {
        let gateways: Vec<Gateway> = self
            .gateways
            .iter_mut()
            .map(|gateway| Gateway {
                https_port: gateway.https_port,
                internal_port: gateway.internal_port,
                pid: gateway.process().pid(),
            })
            .collect();
        let text = self.sample.chute(Engine::Vllm);
        let key = |seed: &str| -> anyhow::Result<Key> {
            Ok(Key { address: keypair(seed)?.hotkey().to_string(), seed: seed.to_owned() })
        };
        Ok(Description {
            domain: DOMAIN.into(),
            ca: self.certificates.authority.clone(),
            https_port: self.gateways[0].https_port,
            http_port: self.gateways[0].http_port,
            urls: Urls {
                api: self.url("api", 0),
                llm: self.url("llm", 0),
                embed: self.url("embed", 0),
                image: self.url("image", 0),
            },
            gateways,
            api_key: self.sample.api_key.clone(),
            user: User { id: self.sample.user.to_string(), username: self.sample.username.clone() },
            chute: Chute {
                id: text.id.to_string(),
                slug: text.slug.clone(),
                host: format!("{}.{DOMAIN}", text.slug),
                model: text.model.clone(),
            },
            keys: Keys { call: key(&self.secrets.call_seed)?, chain: key(&self.secrets.chain_seed)? },
            postgres_url: self.postgres.url().to_owned(),
            redis: Redis {
                url: [("control", redis::User::Control), ("gateway", redis::User::Gateway)]
                    .map(|(name, user)| (name.to_owned(), self.redis.url(user).to_owned()))
                    .into(),
            },
            s3: Store {
                endpoint: self.store.endpoint.clone(),
                bucket: BUCKET.into(),
                access_key: self.secrets.store_access_key.clone(),
                secret_key: self.secrets.store_secret_key.clone(),
            },
            internal: Internal { url: self.control.internal_url(), credential: self.secrets.internal.clone() },
            pids: self.pids(),
        })
    }

    fn pids(&mut self) -> BTreeMap<String, Vec<u32>> {
        let [worker, api] = self.control.processes().map(|process| process.pid());
        BTreeMap::from([
            ("local".into(), vec![std::process::id()]),
            ("postgres".into(), vec![self.postgres.process().pid()]),
            ("redis".into(), vec![self.redis.process().pid()]),
            ("control".into(), vec![worker, api]),
            ("miner".into(), vec![self.miner.process().pid()]),
            ("gateway".into(), self.gateways.iter_mut().map(|gateway| gateway.process().pid()).collect()),
        ])
    }
}
