//! The panels of a Grafana dashboard, as its file describes them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// What `$__rate_interval` stands for; Grafana takes four times the scrape interval.
const RATE_INTERVAL: &str = "20s";

/// A dashboard.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    /// Its title.
    pub title: String,
    /// Its name in addresses.
    pub uid: String,
    /// What users choose.
    pub templating: Templating,
    /// Its panels; rows are panels without targets.
    pub panels: Vec<Panel>,
}

/// What users choose.
#[derive(Debug, Deserialize)]
pub struct Templating {
    /// One by one.
    pub list: Vec<Variable>,
}

/// One thing that users choose.
#[derive(Debug, Deserialize)]
pub struct Variable {
    /// Its name in expressions, without `$`.
    pub name: String,
    /// What is chosen: `datasource` or `query`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the choice comes from.
    pub query: String,
}

/// A panel or a row.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// Its number, unique in the dashboard.
    pub id: u64,
    /// `row`, `stat`, `timeseries`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// What it answers.
    #[serde(default)]
    pub description: String,
    /// Where its data comes from.
    #[serde(default)]
    pub datasource: Value,
    /// Where it stands.
    pub grid_pos: Place,
    /// Units and the like.
    #[serde(default)]
    pub field_config: Value,
    /// What it asks Prometheus.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A place on the grid of 24 columns.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Place {
    /// Columns to the left.
    pub x: u32,
    /// Lines above.
    pub y: u32,
    /// Width.
    pub w: u32,
    /// Height.
    pub h: u32,
}

/// A question to Prometheus.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its letter in the panel.
    pub ref_id: String,
    /// `PromQL` with Grafana's variables.
    pub expr: String,
}

impl Dashboard {
    /// Reads a dashboard.
    ///
    /// # Errors
    /// When the file is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Everything the panels ask Prometheus, with the panel that asks.
    pub fn targets(&self) -> impl Iterator<Item = (&Panel, &Target)> {
        self.panels.iter().flat_map(|panel| panel.targets.iter().map(move |target| (panel, target)))
    }
}

impl Place {
    /// Whether two panels stand on each other.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let apart = self.x + self.w <= other.x
            || other.x + other.w <= self.x
            || self.y + self.h <= other.y
            || other.y + other.h <= self.y;
        !apart
    }
}

impl Target {
    /// The question as Grafana puts it when all gateways are chosen.
    #[must_use]
    pub fn substituted(&self) -> String {
        self.expr.replace("$gateway", ".*").replace("$__rate_interval", RATE_INTERVAL)
    }
}

/// The folder of dashboards and alerts of this tree.
///
/// # Errors
/// When this crate does not lie in the workspace.
pub fn folder() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests crate lies in the workspace")?;
    Ok(root.join("dashboards"))
}
