//! Finds the built executables of the platform and refuses those of another build.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::children::{Launch, run};

/// The state of the tree that this executable was built from.
pub const BUILD_ID: &str = match option_env!("CHUTES_BUILD_ID") {
    Some(id) => id,
    None => "unset",
};

const ANSWER: Duration = Duration::from_secs(10);

/// The executables of one build.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The edge.
    pub gateway: PathBuf,
    /// All roles of control.
    pub control: PathBuf,
    /// The sample miner.
    pub miner: PathBuf,
}

impl Programs {
    /// Finds the executables beside the running one; a test's own lies one folder below them.
    ///
    /// # Errors
    /// When one is missing or was built from another state of the tree.
    pub async fn find() -> anyhow::Result<Self> {
        let running = std::env::current_exe().context("finding the running executable")?;
        let folder = running.parent().context("the running executable lies in no folder")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let programs =
            Self { gateway: folder.join("gateway"), control: folder.join("control"), miner: folder.join("miner") };
        for program in [&programs.gateway, &programs.control, &programs.miner] {
            check(program).await?;
        }
        Ok(programs)
    }
}

async fn check(program: &Path) -> anyhow::Result<()> {
    let shown = program.display();
    if !program.exists() {
        bail!("{shown} is missing; build it with: cargo build --workspace --bins");
    }
    let launch = Launch::new("build id", program).arguments(["--build-id"]);
    let answer = run(&launch, ANSWER).await.with_context(|| format!("asking {shown} for its build id"))?;
    let found = answer.trim();
    if found != BUILD_ID {
        bail!(
            "{shown} was built from another state of the tree ({found:?}, this one is {BUILD_ID:?}); build again \
             with: make run"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An executable that says it was built from this state of the tree.
    fn program(folder: &Path, build_id: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = --build-id ] && echo '{build_id}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn an_executable_of_another_build_is_refused_and_one_of_this_build_is_not() {
        let folder = tempfile::tempdir().unwrap();
        check(&program(folder.path(), BUILD_ID)).await.unwrap();
        let refusal = check(&program(folder.path(), "another")).await.unwrap_err().to_string();
        assert!(refusal.contains("was built from another state of the tree (\"another\""), "{refusal}");
        let refusal = check(&folder.path().join("nothing")).await.unwrap_err().to_string();
        assert!(refusal.contains("is missing"), "{refusal}");
    }
}
