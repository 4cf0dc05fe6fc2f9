//! Reads what an operator names: users by identifier or name, chutes by identifier or slug, limits.

use std::num::NonZeroU32;
use std::str::FromStr;

use protocol::ids::{ChuteId, ImageId, UserId};
use protocol::slug::Slug;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Failure;
use crate::db;
use crate::db::users::User;

/// A limit of an own, or the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// What the gateways' settings say.
    Default,
    /// This many.
    Own(NonZeroU32),
}

impl Limit {
    /// The number to store.
    pub(super) fn value(self) -> Option<u32> {
        match self {
            Self::Default => None,
            Self::Own(limit) => Some(limit.get()),
        }
    }
}

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" {
            return Ok(Self::Default);
        }
        let limit: NonZeroU32 = text.parse().map_err(|_| "a limit is a number from 1, or `default`")?;
        if i32::try_from(limit.get()).is_err() { Err("a limit is at most 2147483647") } else { Ok(Self::Own(limit)) }
    }
}

/// The account with this identifier or name.
pub(super) async fn user(db: &mut PgConnection, named: &str) -> Result<User, Failure> {
    let found = match Uuid::try_parse(named) {
        Ok(id) => db::users::find(db, UserId(id)).await?,
        Err(_) => db::users::find_by_name(db, named).await?,
    };
    found.filter(|user| !user.deleted).ok_or_else(|| Failure::refused(format!("there is no user {named}")))
}

/// The chute with this identifier or slug.
pub(super) async fn chute(db: &mut PgConnection, named: &str) -> Result<ChuteId, Failure> {
    let found = match Uuid::try_parse(named) {
        Ok(id) => db::chutes::find_for_update(db, ChuteId(id)).await?.map(|chute| chute.id),
        Err(_) => match Slug::parse(named) {
            Ok(slug) => db::chutes::find_by_slug(db, &slug).await?,
            Err(_) => None,
        },
    };
    found.ok_or_else(|| Failure::refused(format!("there is no chute {named}")))
}

/// The image with this identifier, or named `[user/]name:tag`; without a user it is this owner's.
pub(super) async fn image(db: &mut PgConnection, named: &str, owner: &User) -> Result<ImageId, Failure> {
    let missing = || Failure::refused(format!("there is no image {named}"));
    let mut candidates = Vec::new();
    if let Ok(id) = Uuid::try_parse(named) {
        candidates.push(ImageId(id));
    } else {
        let (name, tag) = named.rsplit_once(':').ok_or_else(missing)?;
        candidates.push(ImageId::of_tag(&owner.username, name, tag));
        if let Some((username, name)) = name.split_once('/') {
            candidates.push(ImageId::of_tag(username, name, tag));
        }
    }
    for candidate in candidates {
        if db::images::exists(&mut *db, candidate).await? {
            return Ok(candidate);
        }
    }
    Err(missing())
}
