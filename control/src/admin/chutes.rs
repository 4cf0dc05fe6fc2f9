//! Commands about deployed applications.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Subcommand};
use protocol::directory::TokenPrice;
use protocol::ids::ChuteId;
use protocol::slug::Slug;
use rand::Rng;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::io::AsyncReadExt;

use super::find::{self, Limit};
use super::{Admin, Answer, Failure};
use crate::db;
use crate::db::chutes::Chute;
use crate::db::publications;
use crate::domain::chute::{self, Description};

/// Longest description in bytes.
const LONGEST_DESCRIPTION: u64 = 1 << 20;
/// Slugs tried for one chute; each has 36⁵ endings to choose from.
const SLUGS_TRIED: u32 = 8;
/// Characters at the end of a slug whose name is taken.
const SUFFIX_ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SUFFIX_LENGTH: usize = 5;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Deploys a chute.
    Create(Create),
    /// Changes a chute.
    Set(Box<Set>),
    /// Removes a chute with its shares and instances.
    Delete(Named),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Create {
    /// File with the description as JSON, `-` for standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The description as JSON.
    #[arg(long)]
    spec: Option<String>,
}

#[derive(Args)]
pub(super) struct Set {
    /// Identifier or slug.
    #[arg(long)]
    chute: String,
    /// Whether everybody may call it.
    #[arg(long, action = ArgAction::Set)]
    public: Option<bool>,
    /// Whether it is under maintenance.
    #[arg(long, action = ArgAction::Set)]
    maintenance: Option<bool>,
    /// Calls per minute and user, or `default`.
    #[arg(long)]
    rate: Option<Limit>,
    /// Calls at once per user, or `default`.
    #[arg(long)]
    concurrent: Option<Limit>,
    /// Calls one instance serves at once.
    #[arg(long)]
    concurrency: Option<u32>,
    /// Compute multiplier × boost.
    #[arg(long)]
    multiplier: Option<f64>,
    /// Micro-dollars per million prompt tokens.
    #[arg(long, requires = "price_output")]
    price_input: Option<u64>,
    /// Micro-dollars per million completion tokens.
    #[arg(long, requires = "price_input")]
    price_output: Option<u64>,
    /// The model object its engine reports, as JSON.
    #[arg(long, value_parser = json_value)]
    model: Option<Value>,
}

#[derive(Args)]
pub(super) struct Named {
    /// Identifier or slug.
    #[arg(long)]
    chute: String,
}

impl Set {
    /// What is given replaces what the chute has.
    fn apply(&self, chute: &mut Chute) -> Result<(), Failure> {
        chute.public = self.public.unwrap_or(chute.public);
        chute.maintenance = self.maintenance.unwrap_or(chute.maintenance);
        chute.rate_per_minute = self.rate.map_or(chute.rate_per_minute, Limit::value);
        chute.max_concurrent = self.concurrent.map_or(chute.max_concurrent, Limit::value);
        chute.concurrency = self.concurrency.unwrap_or(chute.concurrency);
        chute::check_concurrency(chute.concurrency).map_err(Failure::refused)?;
        chute.multiplier = self.multiplier.unwrap_or(chute.multiplier);
        chute::check_multiplier(chute.multiplier).map_err(Failure::refused)?;
        if let (Some(input), Some(output)) = (self.price_input, self.price_output) {
            let price = TokenPrice { input, output };
            chute::check_price(price).map_err(Failure::refused)?;
            chute.price = Some(price);
        }
        if let Some(model) = &self.model {
            chute.model = Some(model.clone());
        }
        Ok(())
    }
}

impl Admin {
    pub(super) async fn chute(&self, command: Command) -> Answer {
        match command {
            Command::Create(wanted) => self.create_chute(wanted).await,
            Command::Set(wanted) => self.set_chute(&wanted).await,
            Command::Delete(named) => self.delete_chute(&named.chute).await,
        }
    }

    async fn create_chute(&self, wanted: Create) -> Answer {
        let description = match (wanted.file, wanted.spec) {
            (Some(path), _) => read_description(&path).await?,
            (None, Some(text)) => text,
            (None, None) => return Err(Failure::refused("give --file or --spec")),
        };
        let description: Description = serde_json::from_str(&description)
            .map_err(|error| Failure::refused(format!("not a description of a chute: {error}")))?;
        let cords = description.check().map_err(Failure::refused)?;
        let mut transaction = self.db.begin().await?;
        let owner = find::user(&mut transaction, &description.user).await?;
        let image = find::image(&mut transaction, &description.image, &owner).await?;
        let chute = Chute {
            id: ChuteId::of_name(&owner.username, &description.name),
            owner: owner.id,
            slug: Slug::of_name(&owner.username, &description.name),
            name: description.name,
            image,
            // Only read back: the row refers to the image alone.
            image_owner: owner.id,
            template: description.template,
            public: description.public,
            cords,
            model: description.model,
            price: description.price,
            concurrency: description.concurrency,
            multiplier: description.multiplier,
            rate_per_minute: None,
            max_concurrent: None,
            maintenance: false,
        };
        let slug = self.insert_chute(&mut transaction, chute.clone()).await?;
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "chute_id": chute.id, "slug": slug, "user_id": owner.id, "image_id": image, "name": chute.name }))
    }

    /// Inserts a chute under the first slug that is free.
    async fn insert_chute(&self, db: &mut PgConnection, mut chute: Chute) -> Result<Slug, Failure> {
        let base = chute.slug.clone();
        for _ in 0..SLUGS_TRIED {
            if db::chutes::insert(&mut *db, &chute, self.clock.now()).await? {
                return Ok(chute.slug);
            }
            chute.slug = base.with_suffix(&suffix()).map_err(Failure::refused)?;
        }
        Err(Failure::refused(format!("no free slug like {base}")))
    }

    async fn set_chute(&self, wanted: &Set) -> Answer {
        let mut transaction = self.db.begin().await?;
        let id = find::chute(&mut transaction, &wanted.chute).await?;
        let missing = || Failure::refused(format!("there is no chute {}", wanted.chute));
        let mut chute = db::chutes::find_for_update(&mut *transaction, id).await?.ok_or_else(missing)?;
        wanted.apply(&mut chute)?;
        db::chutes::update(&mut *transaction, &chute).await?;
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({
            "chute_id": chute.id,
            "public": chute.public,
            "maintenance": chute.maintenance,
            "rate_per_minute": chute.rate_per_minute,
            "max_concurrent": chute.max_concurrent,
            "concurrency": chute.concurrency,
            "multiplier": chute.multiplier,
            "price": chute.price,
            "model": chute.model,
        }))
    }

    async fn delete_chute(&self, named: &str) -> Answer {
        let mut transaction = self.db.begin().await?;
        let id = find::chute(&mut transaction, named).await?;
        if !db::chutes::delete(&mut *transaction, id).await? {
            return Err(Failure::refused(format!("there is no chute {named}")));
        }
        publications::nudge_directory(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(json!({ "chute_id": id, "deleted": true }))
    }
}

/// Reads a description from a file.
async fn read_description(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(LONGEST_DESCRIPTION).read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// The random end of a slug whose name is taken.
fn suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_ALPHABET[random.random_range(..SUFFIX_ALPHABET.len())])).collect()
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
