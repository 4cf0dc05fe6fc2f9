//! Python environments with pinned packages, made once per machine and kept in the user's cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::task::spawn_blocking;

const INSTALL: Duration = Duration::from_secs(280);
/// Present in an environment that is whole.
const COMPLETE: &str = "complete";

/// Packages by name and version; both parts say all there is to say about an environment.
#[derive(Clone, Copy, Debug)]
pub struct Requirements {
    /// What the environment is for; part of its folder's name.
    pub name: &'static str,
    /// What pip installs, each pinned with `==`.
    pub packages: &'static [&'static str],
}

/// An environment that has its packages.
#[derive(Clone, Debug)]
pub struct Venv {
    /// Its interpreter.
    pub python: PathBuf,
}

/// Where the environment says that caches lie.
#[derive(Parser)]
struct Caches {
    /// Our own cache; the Makefile sets it.
    #[arg(long, env = "CHUTES_CACHE")]
    ours: Option<PathBuf>,
    /// The user's caches.
    #[arg(long, env = "XDG_CACHE_HOME")]
    all: Option<PathBuf>,
    /// The user's home.
    #[arg(long, env = "HOME")]
    home: Option<PathBuf>,
}

impl Venv {
    /// Finds the environment with these packages or makes it; whoever else wants it meanwhile waits.
    ///
    /// # Errors
    /// When Python cannot make environments or pip cannot install the packages; with what they said.
    pub async fn with(requirements: Requirements) -> anyhow::Result<Self> {
        let folder = folder_of(&requirements).await?;
        let parent = folder.parent().context("an environment lies in a folder")?.to_owned();
        fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
        let lock = lock(folder.with_extension("lock")).await?;
        if !folder.join(COMPLETE).exists() {
            let what = || format!("making the Python environment {}", folder.display());
            make(&folder, requirements.packages).await.with_context(what)?;
        }
        drop(lock);
        Ok(Self { python: folder.join("bin/python") })
    }
}

/// The folder's name changes with the packages and with the interpreter.
async fn folder_of(requirements: &Requirements) -> anyhow::Result<PathBuf> {
    let version = run(Command::new("python3").arg("--version")).await.context("asking python3 for its version")?;
    let hash = Sha256::digest(format!("{version}{}", requirements.packages.join("\n")));
    let hash = &hex::encode(hash)[..12];
    Ok(cache()?.join(format!("venv-{}-{hash}", requirements.name)))
}

fn cache() -> anyhow::Result<PathBuf> {
    let caches = Caches::try_parse_from(["caches"])?;
    let all = caches.all.or_else(|| Some(caches.home?.join(".cache")));
    let ours = caches.ours.or_else(|| Some(all?.join("chutes-validator")));
    ours.context("no folder for caches: neither XDG_CACHE_HOME nor HOME is set")
}

/// Waits for the lock on a file; closing the file gives it back, also when this process dies.
async fn lock(path: PathBuf) -> anyhow::Result<File> {
    let wait = move || {
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).context("waiting for another maker")?;
        Ok(file)
    };
    spawn_blocking(wait).await?
}

async fn make(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("removing what an interrupted maker left")?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder)).await?;
    let mut install = Command::new(folder.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    run(install.args(packages)).await?;
    fs::write(folder.join(COMPLETE), packages.join("\n"))?;
    Ok(())
}

/// Runs a command to its end, with our environment: pip reads where to find packages from it.
async fn run(command: &mut Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let child = command.spawn().with_context(|| format!("starting {shown}"))?;
    let output = tokio::time::timeout(INSTALL, child.wait_with_output())
        .await
        .with_context(|| format!("{shown} did not end within {INSTALL:?}"))??;
    if !output.status.success() {
        bail!("{shown} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Requirements = Requirements { name: "empty", packages: &["pip"] };

    #[tokio::test]
    async fn two_makers_at_once_get_one_whole_environment() {
        let (one, other) = tokio::join!(Venv::with(NOTHING), Venv::with(NOTHING));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.python, other.python);
        let says = run(Command::new(&one.python).args(["-c", "import pip; print('whole')"])).await.unwrap();
        assert_eq!(says, "whole\n");
    }
}
