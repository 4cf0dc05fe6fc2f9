//! A private Prometheus with the configuration of `dashboards/`, that scrapes a running platform.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::children::{Child, Launch, Spawner, run};
use crate::ports::Ports;
use crate::{dashboard, private, web};

/// How often it scrapes and evaluates, in place of the interval of the configuration.
const INTERVAL: &str = "1s";
const INTERVAL_IN_FILE: &str = "15s";
const READY: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
const PROMTOOL: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub struct Prometheus {
    url: String,
    web: reqwest::Client,
    child: Child,
}

/// One series of an answer: its labels and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Starts it in a folder; `targets` are the addresses of each job's internal listeners.
    ///
    /// # Errors
    /// When the package is missing, or it does not become ready.
    pub async fn start(
        folder: &Path,
        targets: &[(&str, Vec<String>)],
        credential: &str,
        spawner: &Spawner,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("prometheus");
        let configuration = configure(&folder, targets, credential)?;
        let port = Ports::of_folder(&folder)?.claim("prometheus")?;
        let launch = Launch::new("prometheus", program("prometheus")?)
            .arguments([format!("--config.file={}", configuration.display())])
            .arguments([format!("--storage.tsdb.path={}", folder.join("data").display())])
            .arguments([format!("--web.listen-address=127.0.0.1:{port}"), "--log.level=warn".into()]);
        let child = spawner.start(&launch).await?;
        let url = format!("http://127.0.0.1:{port}");
        let mut prometheus = Self { url, web: web::client(None)?, child };
        prometheus.wait_until_ready().await.with_context(|| format!("see {}", spawner.log("prometheus").display()))?;
        Ok(prometheus)
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// When it is none, or Prometheus does not answer.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Sample>> {
        let answer = self.ask("query", &[("query", expression)]).await?;
        let result = answer["result"].as_array().context("an answer without a result")?;
        if answer["resultType"] == "scalar" {
            return Ok(vec![Sample { labels: BTreeMap::new(), value: number(&answer["result"])? }]);
        }
        let sample = |series: &Value| {
            let labels = serde_json::from_value(series["metric"].clone()).context("a series without labels")?;
            Ok(Sample { labels, value: number(&series["value"])? })
        };
        result.iter().map(sample).collect()
    }

    /// Each alert rule by name with its state (`inactive`, `pending`, `firing`) and the error of its evaluation.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn alerts(&self) -> anyhow::Result<BTreeMap<String, (String, String)>> {
        let answer = self.ask("rules", &[("type", "alert")]).await?;
        let groups = answer["groups"].as_array().context("an answer without groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules.map(|rule| (text(&rule["name"]), (text(&rule["state"]), text(&rule["lastError"])))).collect())
    }

    /// The targets that cannot be scraped, with the reason.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn unreachable(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.ask("targets", &[("state", "active")]).await?;
        let targets = answer["activeTargets"].as_array().context("an answer without targets")?;
        let down = targets.iter().filter(|target| target["health"] != "up");
        Ok(down.map(|target| format!("{}: {}", target["scrapeUrl"], target["lastError"])).collect())
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let request = self.web.get(format!("{}/api/v1/{what}", self.url)).query(parameters).timeout(ANSWER);
        let answer: Value = request.send().await?.json().await?;
        ensure!(answer["status"] == "success", "{parameters:?}: {}", answer["error"]);
        Ok(answer["data"].clone())
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        loop {
            let answer = self.web.get(format!("{}/-/ready", self.url)).timeout(ANSWER).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.ended()? {
                bail!("prometheus ended at once ({status})");
            }
            ensure!(tokio::time::Instant::now() < deadline, "prometheus does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Puts the configuration of the tree and the rules into a folder, with targets and credential beside them; gives the
/// configuration's path.
///
/// # Errors
/// When the folder cannot be written.
pub fn configure(folder: &Path, targets: &[(&str, Vec<String>)], credential: &str) -> anyhow::Result<PathBuf> {
    private::make_folder(folder)?;
    let source = dashboard::folder()?;
    let read = |name: &str| std::fs::read_to_string(source.join(name)).with_context(|| format!("reading {name}"));
    let configuration = folder.join("prometheus.yml");
    private::write(&configuration, read("prometheus.yml")?.replace(INTERVAL_IN_FILE, INTERVAL).as_bytes())?;
    private::write(&folder.join("alerts.yml"), read("alerts.yml")?.as_bytes())?;
    private::write(&folder.join("internal.credential"), credential.as_bytes())?;
    for (job, addresses) in targets {
        let list = serde_json::json!([{ "targets": addresses }]);
        // JSON is YAML.
        private::write(&folder.join(format!("{job}.targets.yml")), list.to_string().as_bytes())?;
    }
    Ok(configuration)
}

/// Runs promtool; what it said if it was not content.
///
/// # Errors
/// When the package is missing, or promtool finds fault.
pub async fn promtool(arguments: &[&str]) -> anyhow::Result<String> {
    run(&Launch::new("promtool", program("promtool")?).arguments(arguments.iter().copied()), PROMTOOL).await
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    ensure!(path.exists(), "{name} is missing; install the package prometheus");
    Ok(path)
}

/// The value of a pair of time and value.
fn number(pair: &Value) -> anyhow::Result<f64> {
    pair[1].as_str().and_then(|text| text.parse().ok()).context("a sample without a value")
}
