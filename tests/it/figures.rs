//! The alerts, the dashboard and the pages: whatever they say of metrics is what a fleet really prints that has served a bit.

use crate::{
    application::{Application, Manner},
    comebacks::Page,
    fleet::Fleet,
    patience::eventually,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What Prometheus adds to each sample itself.
const SCRAPED: [&str; 2] = ["job", "instance"];
/// Of redis_exporter, for whoever has one.
const FOREIGN: [&str; 4] =
    ["redis_exporter", "redis_evicted_keys_total", "redis_memory_used_bytes", "redis_memory_max_bytes"];
/// Labels of which every value is there from the start.
const WHOLE: [&str; 3] = ["cause", "le", "canary"];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of each metric its labels, and of each label its values.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What three instances print, of which one is a canary, when something of each kind has happened to them.
async fn known() -> Known {
    let application = Application::start().await;
    for path in ["/connect", "/events"] {
        application.at(path, Manner::status(204));
    }
    let (connect, events) = (application.url("/connect"), application.url("/events"));
    let settings = [("MIN_SOCKETS", "1"), ("CONNECT_URL", connect.as_str()), ("EVENTS_URL", events.as_str())];
    let fleet = Fleet::with(&settings).await;
    let canary = crate::gateway::Gateway::with([("CANARY", "true"), ("REDIS_URL", fleet.redis().url().as_str())]).await;
    let mut client = fleet[0].greeted("/ws?user_id=u&store_id=s&room_id=r").await;
    client.asks(r#"{"type":"nothing"}"#).await;
    fleet[1].knock("/websocket").await;
    let page = Page::opens(&fleet[0], "user_id=v").await;
    let (_, token) = page.breaks();
    let _back = Page::comes(&fleet[1], "user_id=v", &token, 0).await;
    let asked = json!({ "userId": "u", "event": "x" });
    let (answer, ()) = tokio::join!(fleet[2].post("/api/call", &asked), async {
        let call = client.hears().await;
        client.says(json!({ "type": "reply", "callId": call["callId"], "data": 1 }).to_string()).await;
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    fleet[2].post("/api/send", &json!({ "userId": "u", "data": 1 })).await;
    client.leaves().await;
    eventually("the fleet is counted and the application told", async || {
        let text = fleet[0].get("/metrics").await.text();
        (text.contains("\nholdfast_fleet_connections ") && text.contains("\nholdfast_events_total{")).then_some(())
    })
    .await;
    let mut known = Known::new();
    for gateway in [&fleet[0], &fleet[1], &fleet[2], &canary] {
        let text = gateway.get("/metrics").await.text();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels) = line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line, ""));
            let metric = known.entry(name.split(' ').next().unwrap().to_owned()).or_default();
            for (label, _, value) in matchers(labels) {
                metric.entry(label.to_owned()).or_default().insert(value.to_owned());
            }
        }
    }
    known
}

/// `label="value"`, one after the other: label, operator, value.
fn matchers(text: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((head, behind)) = rest.split_once('"') {
        let (value, behind) = behind.split_once('"').unwrap();
        let label = head.trim_matches([',', ' ', '{']);
        let name = label.trim_end_matches(['=', '~', '!']);
        found.push((name, &label[name.len()..], value));
        rest = behind;
    }
    found
}

/// The words of an expression that are no text in quotes.
fn words(expr: &str) -> Vec<&str> {
    let outside = expr.split('"').step_by(2);
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    outside.flat_map(move |part| part.split(word)).filter(|word| !word.is_empty()).collect()
}

/// Our metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let ours =
        |word: &&str| word.starts_with("holdfast_") || word.starts_with("process_") || word.starts_with("redis_");
    words(text).into_iter().filter(ours).collect()
}

/// What is wrong with an expression: names, labels and values that nobody prints.
fn objections(expr: &str, known: &Known, recorded: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut labels: BTreeSet<&str> = SCRAPED.into();
    for name in named(expr) {
        match known.get(name) {
            Some(of_it) => labels.extend(of_it.keys().map(String::as_str)),
            None if FOREIGN.contains(&name) => {}
            None => found.push(format!("{name} is printed by nobody")),
        }
    }
    let records = words(expr).into_iter().filter(|word| word.contains(':') && word.starts_with(char::is_alphabetic));
    for name in records {
        found.extend((!recorded.contains(name)).then(|| format!("{name} is recorded by no rule")));
        labels.insert("canary");
    }
    for (at, _) in expr.match_indices('{') {
        let name = expr[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).next().unwrap();
        let end = expr[at..].find('}').unwrap() + at;
        for (label, operator, value) in matchers(&expr[at + 1..end]) {
            let values = known.get(name).and_then(|labels| labels.get(label));
            let is_known = SCRAPED.contains(&label) || values.is_some() || recorded.contains(name);
            found.extend((!is_known).then(|| format!("{name} has no label {label}")));
            for value in value.split('|').filter(|_| WHOLE.contains(&label) && operator != "!=") {
                let is_said = values.is_none_or(|values| values.contains(value)) || value.starts_with('$');
                found.extend((!is_said).then(|| format!("{label} of {name} is never {value}")));
            }
        }
    }
    for clause in ["by (", "on (", "group_left ("] {
        for (at, _) in expr.match_indices(clause) {
            let list = expr[at + clause.len()..].split(')').next().unwrap();
            let strange = list.split(',').map(str::trim).filter(|label| !label.is_empty() && !labels.contains(label));
            found.extend(strange.map(|label| format!("nothing in it has the label {label}")));
        }
    }
    found.into_iter().map(|fault| format!("{fault}, in {expr}")).collect()
}

/// A rule: its name, its expression, and all that is said beside.
struct Rule {
    name: String,
    is_alert: bool,
    expr: String,
    beside: String,
}

/// The rules, as far as YAML is needed for them.
fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in file("deploy/prometheus/holdfast.rules.yml").lines().map(str::trim) {
        let begins = line.strip_prefix("- alert: ").map(|name| (name, true));
        if let Some((name, is_alert)) = begins.or(line.strip_prefix("- record: ").map(|name| (name, false))) {
            rules.push(Rule { name: name.into(), is_alert, expr: String::new(), beside: String::new() });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        if let Some(expr) = line.strip_prefix("expr: ") {
            in_expr = true;
            rule.expr = expr.trim_start_matches('|').into();
        } else if ["for:", "labels:", "annotations:", "- name:"].iter().any(|key| line.starts_with(key)) {
            in_expr = false;
            rule.beside.push_str(line);
        } else {
            let part = if in_expr { &mut rule.expr } else { &mut rule.beside };
            part.push(' ');
            part.push_str(line);
        }
    }
    rules
}

fn recorded(rules: &[Rule]) -> BTreeSet<String> {
    rules.iter().filter(|rule| !rule.is_alert).map(|rule| rule.name.clone()).collect()
}

/// Checklist 43: each says what to do, where that is written, and is tried by `./x alerts`.
#[test]
fn every_alert_says_what_to_do() {
    let tried = file("deploy/prometheus/holdfast.rules.test.yml");
    let rules = rules();
    assert!(rules.iter().filter(|rule| rule.is_alert).count() >= 15);
    for Rule { name, beside, is_alert, expr } in &rules {
        assert!(!expr.trim().is_empty(), "{name}");
        if !is_alert {
            continue;
        }
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(beside.contains(part), "{name} has no {part}");
        }
        let page = beside.split("page: ").last().and_then(|page| page.split_whitespace().next()).unwrap();
        file(page);
        assert!(tried.contains(&format!("alertname=\"{name}\"")), "{name} is tried by no test");
    }
    // Phrases that people look for.
    for phrase in ["Socket count below threshold!", "No healthy sockets found!"] {
        assert!(rules.iter().any(|rule| rule.beside.contains(phrase)), "{phrase}");
    }
}

/// Every panel of the dashboard that shows something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// Checklist 43, 136, 191, 222, 224: what is good, and what to do when it is not.
#[test]
fn every_panel_says_what_is_good() {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/holdfast.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39) && dashboard["id"].is_null());
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{panel}");
    }
    for panel in panels(&dashboard) {
        let said = panel["description"].as_str().unwrap_or_else(|| panic!("{} says nothing", panel["title"]));
        assert!(said.contains("Good: ") && said.len() > 30, "{}: {said}", panel["title"]);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
    for title in ["Age of sockets when they end", "Refusals by reason", "Closes by cause", "Memory per socket"] {
        assert!(titles.contains(title), "{title}");
    }
    let variables: BTreeSet<_> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["canary", "datasource", "instance", "job"].into());
}

/// Checklist 42, 43, 215, 216, 217, 221: no name, label or cause in the alerts, the dashboard or the pages is stale.
#[tokio::test]
async fn alerts_dashboard_and_pages_name_what_is_really_printed() {
    let known = known().await;
    let rules = rules();
    let recorded = recorded(&rules);
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/holdfast.json")).unwrap();
    let mut exprs: Vec<String> = rules.iter().map(|rule| rule.expr.clone()).collect();
    for target in panels(&dashboard).iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        exprs.push(target["expr"].as_str().unwrap().into());
    }
    for marks in dashboard["annotations"]["list"].as_array().unwrap() {
        exprs.push(marks["expr"].as_str().unwrap().into());
    }
    let mut found: Vec<_> = exprs.iter().flat_map(|expr| objections(expr, &known, &recorded)).collect();
    let pages = ["README.md", "docs/codes.md", "docs/capacity.md", "docs/troubleshooting.md", "docs/upgrading.md"];
    let told = rules.iter().map(|rule| rule.beside.clone()).chain(pages.map(file));
    for text in told {
        let strange = named(&text).into_iter().filter(|name| {
            let family = |known: &str| {
                known == *name || ["_total", "_bucket", "_info"].iter().any(|end| known == format!("{name}{end}"))
            };
            !known.keys().any(|known| family(known)) && !FOREIGN.contains(name)
        });
        found.extend(strange.map(|name| format!("{name} is written of and printed by nobody")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The look at expressions sees what is wrong with one.
#[test]
fn a_stale_name_label_or_value_is_found() {
    let line = BTreeMap::from([("cause".to_owned(), BTreeSet::from(["kicked".to_owned()]))]);
    let known = Known::from([("holdfast_x_total".to_owned(), line)]);
    let seen = |expr| objections(expr, &known, &BTreeSet::new()).len();
    assert_eq!(seen(r#"sum by (job, cause) (rate(holdfast_x_total{cause=~"kicked"}[5m])) > 0"#), 0);
    for stale in [
        "holdfast_y_total",
        r#"holdfast_x_total{reason="kicked"}"#,
        r#"holdfast_x_total{cause=~"kicked|bored"}"#,
        "sum by (verb) (holdfast_x_total)",
        "job:nothing:rate5m",
    ] {
        assert_eq!(seen(stale), 1, "{stale}");
    }
}
