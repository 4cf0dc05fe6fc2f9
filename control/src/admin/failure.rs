//! Why a command failed, in words for people.

use sqlx::postgres::PgDatabaseError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The operator asked for something that cannot be.
    #[error("{0}")]
    Refused(String),
    /// Postgres failed.
    #[error("postgres failed: {0}")]
    Database(#[source] sqlx::Error),
}

impl Failure {
    /// A refusal in these words.
    pub(super) fn refused(reason: impl ToString) -> Self {
        Self::Refused(reason.to_string())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|error| explain(error.try_downcast_ref()?)) {
            Some(reason) => Self::Refused(reason),
            None => Self::Database(error),
        }
    }
}

/// What the violated constraint means, with the value that violates it where Postgres tells.
fn explain(error: &PgDatabaseError) -> Option<String> {
    let meaning = meaning(error.constraint()?)?;
    let value = error.detail().and_then(|detail| detail.split_once(")=(")?.1.split_once(')')).map(|(value, _)| value);
    Some(match value {
        Some(value) => format!("{meaning}: {value}"),
        None => meaning.to_owned(),
    })
}

fn meaning(constraint: &str) -> Option<&'static str> {
    Some(match constraint {
        "users_username_form" => "a user name has 3 to 15 letters, digits, _ and -",
        "users_username_unique" => "the user name is taken",
        "hotkeys_user_unique" => "the user has another hotkey",
        "api_keys_name_unique" => "the user has a key of this name",
        "api_keys_name_length" => "a key's name has 1 to 128 characters",
        "images_name_form" => "an image's name has 3 to 65 of a-z, 0-9, _, ., / and -, the first a letter or digit",
        "images_tag_form" => "an image's tag has 2 to 33 of a-z, 0-9, _, ., / and -, the first a letter or digit",
        "images_name_unique" | "images_pkey" => "there is such an image already",
        "chutes_name_unique" | "chutes_pkey" => "the user has a chute of this name",
        "instances_address_unique" => "the address is another instance's",
        "aliases_length" | "aliases_name_length" => "an alias and its name have 1 to 128 characters",
        "users_permissions_range" => "permissions are a number of bits",
        "users_rate_range" | "users_concurrent_range" | "chutes_rate_range" | "chutes_concurrent_range" => {
            "a limit is at least 1"
        }
        _ => return None,
    })
}
