//! A distinct type for each identifier, with the recipes of the deterministic ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares a UUID that cannot be mistaken for another one.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random identifier.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A person or organisation with an account.
    UserId
);
id!(
    /// One API key of a user.
    ApiKeyId
);
id!(
    /// A deployed application.
    ChuteId
);
id!(
    /// A container image.
    ImageId
);
id!(
    /// One running copy of a chute on a miner's machine.
    InstanceId
);
id!(
    /// One call of a client; upstream's `parent_invocation_id` and `X-Chutes-InvocationID`.
    CallId
);
id!(
    /// One attempt of a call on one instance; upstream's `invocation_id`.
    InvocationId
);
id!(
    /// One record log: a gateway process from its start to its end.
    WriterId
);

impl UserId {
    /// The identifier of the user with this fingerprint hash (hex BLAKE2b-512): UUIDv5 in the OID namespace.
    #[must_use]
    pub fn of_fingerprint_hash(hash: &str) -> Self {
        Self(oid(hash))
    }
}

impl ChuteId {
    /// The identifier of a user's chute: UUIDv5 of `{username}::chute::{name}`.
    #[must_use]
    pub fn of_name(username: &str, name: &str) -> Self {
        Self(oid(&format!("{username}::chute::{name}")))
    }
}

impl ImageId {
    /// The identifier of a user's image: UUIDv5 of `{lower(username)}/{name}:{tag}`.
    ///
    /// The server's recipe lower-cases the user name only, the CLI's the whole text; a name and a tag are
    /// lower case by the rules of the registry, so that both give the same.
    #[must_use]
    pub fn of_tag(username: &str, name: &str, tag: &str) -> Self {
        Self(oid(&format!("{}/{name}:{tag}", username.to_lowercase())))
    }
}

/// The version of a chute: UUIDv5 of `{image_id}:{code}`.
#[must_use]
pub fn chute_version(image: ImageId, code: &str) -> Uuid {
    oid(&format!("{image}:{code}"))
}

fn oid(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's `uuid.uuid5(uuid.NAMESPACE_OID, …)`.
    #[test]
    fn deterministic_identifiers_are_those_the_cli_computes() {
        let image = ImageId::of_tag("Tester", "hello", "0.1");
        assert_eq!(image.to_string(), "8e9f2dd5-65bf-5e28-be82-6b1a7dee1adb");
        assert_eq!(ChuteId::of_name("tester", "hello").to_string(), "c492d470-cc2b-57e3-93ce-0c4e70767b80");
        assert_eq!(UserId::of_fingerprint_hash(&"ab".repeat(64)).to_string(), "28bd6461-02a2-5ade-9fda-7e494754bce7");
        assert_eq!(chute_version(image, "print(1)\n").to_string(), "f30987ba-6cb6-58a1-8801-46d77cf1b3a9");
    }
}
