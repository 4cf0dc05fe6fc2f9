//! Checks dashboards and alerts against each other, against the programs' metrics, and with Prometheus' own tools.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use stack::dashboard::{self, Dashboard, Panel};
use stack::prometheus;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// What a histogram's series are called beside its name.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

fn root() -> PathBuf {
    dashboard::folder().unwrap().parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(dashboard::folder().unwrap().join(name)).unwrap()
}

fn gateway() -> Dashboard {
    Dashboard::read(&dashboard::folder().unwrap().join("gateway.json")).unwrap()
}

/// The text of every source file about metrics, by path.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for program in ["gateway", "control"] {
        let mut waiting = vec![root().join(program).join("src/metrics.rs"), root().join(program).join("src/metrics")];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.exists() && !path.ends_with("tests.rs") {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Every name of a metric in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("chutes_")).map(str::to_owned).collect()
}

/// Every metric that the programs have.
fn metrics() -> BTreeSet<String> {
    let strings = |text: &String| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let found: BTreeSet<String> =
        sources().values().flat_map(strings).filter(|text| names(text).contains(text)).collect();
    assert!(found.len() > 40, "the metrics were not found");
    found
}

/// The metric that a series belongs to.
fn metric_of(series: &str, metrics: &BTreeSet<String>) -> Option<String> {
    let bases = SUFFIXES.iter().filter_map(|suffix| series.strip_suffix(suffix));
    std::iter::once(series).chain(bases).find(|name| metrics.contains(*name)).map(str::to_owned)
}

/// Every series that a panel or an alert asks for, with who asks.
fn asked() -> Vec<(String, String)> {
    let dashboard = gateway();
    let panels = dashboard.targets().flat_map(|(panel, target)| {
        names(&target.expr).into_iter().map(|name| (format!("panel {:?}", panel.title), name))
    });
    let alerts = alerts();
    let alerts = alerts.iter().flat_map(|(alert, rule)| {
        let expression = rule.split_once("expr:").unwrap().1.split_once("labels:").unwrap().0;
        names(expression).into_iter().map(|name| (format!("alert {alert}"), name)).collect::<Vec<_>>()
    });
    panels.chain(alerts).collect()
}

/// The text of each alert's rule by name.
fn alerts() -> BTreeMap<String, String> {
    blocks(&read("alerts.yml"), "- alert: ")
}

/// What stands between one mark and the next, by the rest of the mark's line.
fn blocks(text: &str, mark: &str) -> BTreeMap<String, String> {
    let parts: Vec<&str> = text.split(mark).skip(1).collect();
    let named = parts.iter().map(|part| part.split_once('\n').unwrap());
    let found: BTreeMap<String, String> = named.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect();
    assert_eq!(found.len(), parts.len(), "a name stands twice");
    found
}

#[tokio::test]
async fn prometheus_takes_the_configuration_and_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let targets = [("gateway", vec!["127.0.0.1:1".to_owned()]), ("control", vec!["127.0.0.1:2".to_owned()])];
    let configuration = prometheus::configure(&folder.path().join("prometheus"), &targets, "secret").unwrap();
    prometheus::promtool(&["check", "config", configuration.to_str().unwrap()]).await.unwrap();
}

#[tokio::test]
async fn each_alert_fires_when_it_should_and_is_silent_when_all_is_well() {
    let tests = dashboard::folder().unwrap().join("alerts.test.yml");
    prometheus::promtool(&["test", "rules", tests.to_str().unwrap()]).await.unwrap();
}

#[test]
fn each_alert_has_a_silent_and_a_firing_test() {
    let (alerts, tests) = (alerts(), blocks(&read("alerts.test.yml"), "- name: "));
    let names = |blocks: &BTreeMap<String, String>| blocks.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&alerts), names(&tests));
    for (alert, test) in tests {
        let asks = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"");
        let (silent, firing) = test.split_once("exp_samples: []").unwrap_or_else(|| panic!("{alert} is never silent"));
        assert!(silent.contains(&asks), "{alert}: the silent test asks for something else");
        let expected = firing.split_once("exp_samples:").unwrap_or_else(|| panic!("{alert} never fires")).1;
        assert!(expected.contains(&asks) && expected.contains("value: 1"), "{alert} never fires");
    }
}

#[test]
fn an_alert_on_one_movement_of_a_counter_sees_one_from_before_the_first_scrape_too() {
    let is_moved = |rule: &str| rule.contains("increase(") && rule.contains("]) > 0");
    let moved: Vec<_> = alerts().into_iter().filter(|(_, rule)| is_moved(rule)).collect();
    assert!(moved.len() > 5, "the alerts were not found");
    for (alert, rule) in moved {
        assert!(rule.contains(" > 0 unless ") && rule.contains(" offset "), "{alert} sees an increase alone");
    }
}

#[test]
fn each_alert_says_how_urgent_it_is_what_is_wrong_and_what_that_means() {
    for (alert, rule) in alerts() {
        let urgent =
            ["labels: {severity: page}", "labels: {severity: ticket}"].iter().any(|label| rule.contains(label));
        assert!(urgent, "{alert} says neither page nor ticket");
        for part in ["summary: ", "description: "] {
            assert!(rule.contains(part), "{alert} has no {part}");
        }
    }
}

#[test]
fn panels_and_alerts_ask_only_for_metrics_that_the_programs_have() {
    let metrics = metrics();
    let unknown: Vec<_> = asked().into_iter().filter(|(_, name)| metric_of(name, &metrics).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn each_metric_of_the_programs_is_plotted_or_alerted_on() {
    let metrics = metrics();
    let used: BTreeSet<String> = asked().iter().filter_map(|(_, name)| metric_of(name, &metrics)).collect();
    let unused: Vec<_> = metrics.difference(&used).collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn only_the_listed_metrics_name_a_chute() {
    let (mut labelled, mut listed) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources() {
        if ["&[\"chute\"", ", \"chute\"]"].iter().any(|label| text.contains(label)) {
            labelled.push(path);
        }
        if let Some((_, list)) = text.split_once("pub const PER_CHUTE") {
            listed = names(list.split_once("];").unwrap().0);
        }
    }
    assert_eq!(labelled, [root().join("gateway/src/metrics/chutes.rs")]);
    assert!(!listed.is_empty() && listed.iter().all(|name| name.starts_with("chutes_gateway_chute_")), "{listed:?}");
    let strangers: Vec<_> =
        metrics().into_iter().filter(|name| name.contains("_chute_") && !listed.contains(name)).collect();
    assert!(strangers.is_empty(), "{strangers:?} are not in PER_CHUTE");
}

#[test]
fn each_panel_says_what_it_shows_in_which_unit_and_from_the_chosen_source() {
    let dashboard = gateway();
    let kinds = |name: &str| dashboard.templating.list.iter().find(|variable| variable.name == name).unwrap();
    assert_eq!((kinds("datasource").kind.as_str(), kinds("datasource").query.as_str()), ("datasource", "prometheus"));
    assert_eq!(kinds("gateway").kind, "query");
    for panel in dashboard.panels.iter().filter(|panel| panel.kind != "row") {
        let title = &panel.title;
        assert!(["stat", "timeseries", "heatmap"].contains(&panel.kind.as_str()), "{title}: {}", panel.kind);
        assert!(!title.is_empty() && panel.description.ends_with('.'), "{title}: no title or description");
        assert_eq!(panel.datasource["uid"], "${datasource}", "{title}");
        assert!(panel.field_config["defaults"]["unit"].is_string(), "{title}: no unit");
        let letters: BTreeSet<&str> = panel.targets.iter().map(|target| target.ref_id.as_str()).collect();
        assert!(!letters.is_empty() && letters.len() == panel.targets.len(), "{title}: targets without letters");
    }
    for (panel, target) in dashboard.targets() {
        let left = target.substituted().contains('$');
        assert!(!left, "{}: a variable that nobody chooses: {}", panel.title, target.expr);
    }
}

#[test]
fn panels_stand_beside_each_other_within_the_grid() {
    let panels = gateway().panels;
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel.id).collect();
    assert_eq!(ids.len(), panels.len(), "an id stands twice");
    let read = |panel: &Panel| (panel.grid_pos.y, panel.grid_pos.x);
    assert!(panels.is_sorted_by_key(read), "panels stand in the file as they are read on the screen");
    for (number, panel) in panels.iter().enumerate() {
        let place = panel.grid_pos;
        assert!(place.w > 0 && place.h > 0 && place.x + place.w <= COLUMNS, "{}: {place:?}", panel.title);
        for other in &panels[..number] {
            assert!(!place.overlaps(other.grid_pos), "{} stands on {}", panel.title, other.title);
        }
    }
}

#[test]
fn the_files_are_listed_in_the_readme() {
    let readme = read("README.md");
    for entry in fs::read_dir(dashboard::folder().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name}");
    }
    assert!(Path::new(&root()).join("dashboards/gateway.json").exists());
    let dashboard = gateway();
    for row in dashboard.panels.iter().filter(|panel| panel.kind == "row") {
        assert!(readme.contains(&format!("| {} |", row.title)), "the row {:?} is not explained", row.title);
    }
}
