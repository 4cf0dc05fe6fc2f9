//! Principals for tests: some are known, and nobody can be asked for others.

use clap::Parser;

use super::{Arc, Config, Instant, Key, Kind, Metrics, Principals, Settled, Versioned};

impl Principals {
    /// Principals of a gateway that has neither Redis nor control.
    pub(crate) fn alone(metrics: Arc<Metrics>) -> Arc<Self> {
        // Another test of this process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let zeros = "00".repeat(32);
        let config = Config::parse_from([
            "gateway",
            "--domain=chutes.localhost",
            "--certificates=/none",
            "--log-folder=/none",
            "--redis-url=redis://127.0.0.1:9/?protocol=resp3",
            "--api-upstream=127.0.0.1:9",
            "--control-url=http://127.0.0.1:9",
            "--internal-credential=internal",
            "--directory-key",
            &zeros,
            "--call-key-seed",
            &zeros,
            "--session-public-key",
            &zeros,
        ]);
        let principals = Self::new(&config, metrics).unwrap();
        principals.proof.begin(Instant::now());
        principals
    }

    /// What is there under a key, as if it had just been read.
    #[expect(private_bounds, reason = "the kinds of principals are this module's")]
    pub(crate) fn learn<T: Kind>(&self, key: &Key, entry: Option<T>) {
        let key: Arc<str> = key.as_str().into();
        let cache = &T::store(self).cache;
        let ticket = cache.ticket(&key, self.proof.current());
        let found = entry.map(|entry| Versioned { version: 1, entry });
        assert!(matches!(cache.settle(&key, ticket, found, Instant::now()), Settled::Kept(_)));
    }
}
