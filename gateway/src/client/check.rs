//! `holdfast check`: the configuration in force, where each value comes from, every problem. With `--nginx`, every problem
//! of it and of the configuration of the proxy in front (`check/nginx.rs`), without the table.

mod env;
mod host;
mod nginx;
mod routes;

use super::{
    exit,
    given::Given,
    words::{json as as_json, settings},
};
use crate::config::{Reading, fingerprint, settings::SETTINGS, sources::Source};
use clap::{Arg, ArgAction, Command};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

pub fn command() -> Command {
    Command::new("check")
        .about("Show the configuration in force, where each value comes from, and every problem")
        .arg(as_json())
        .arg(
            Arg::new("env")
                .long("env")
                .action(ArgAction::SetTrue)
                .conflicts_with("json")
                .help("As lines NAME=value of an environment file, without secrets"),
        )
        .arg(
            Arg::new("nginx")
                .long("nginx")
                .value_name("FILE")
                .help("Look for what is wrong in this configuration of nginx, and compare it with the settings"),
        )
        .arg(
            Arg::new("routes")
                .long("routes")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["env", "nginx"])
                .help("Show what a socket meets before its 101, and who may ask what"),
        )
        .args(settings())
}

/// Shows it; 78 if it would not start with it.
pub fn run(given: &Given<'_>) -> ExitCode {
    let reading = given.reading();
    let faults = reading.config.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let rows = rows(&reading);
    let proxy = given.text("nginx").map(|file| nginx::look(file, reading.config.as_ref().ok()));
    let is_valid = faults.is_empty() && !proxy.as_ref().is_some_and(nginx::Report::has_problems);
    if given.as_json() {
        let settings: Map<String, Value> = rows
            .into_iter()
            .map(|row| (row.name.to_owned(), json!({ "value": row.value, "source": row.source.to_string() })))
            .collect();
        let problems: Vec<_> = faults
            .iter()
            .map(|fault| json!({ "setting": fault.setting, "value": fault.value, "fix": fault.fix }))
            .collect();
        let mut said = json!({
            "valid": is_valid,
            "version": crate::gateway::VERSION,
            "configuration": fingerprint::of(&reading.sources),
            "host": host::json(given.env, &reading.manager),
            "settings": settings,
            "problems": problems,
            "warnings": reading.sources.warnings,
        });
        if let Some(proxy) = &proxy {
            said["nginx"] = proxy.json();
        }
        if given.is_set("routes") {
            said["way"] = routes::json(&reading);
        }
        say!("{said:#}");
    } else if given.is_set("env") {
        env::lines(&reading).iter().for_each(|line| say!("{line}"));
        reading.sources.warnings.iter().for_each(|warning| complain!("warning: {warning}"));
        faults.iter().for_each(|fault| complain!("problem: {fault}"));
        proxy.iter().flat_map(nginx::Report::lines).for_each(|line| complain!("{line}"));
    } else {
        // Whoever asks about the proxy asked for the settings before.
        if given.is_set("routes") {
            routes::print(&reading);
        } else if proxy.is_none() {
            for row in rows {
                let value = if row.value.is_empty() { "-" } else { row.value.as_str() };
                say!("{:<22} {value:<30} {}", row.name, row.source);
            }
            say!("{}, configuration {}", host::line(given.env, &reading.manager), fingerprint::of(&reading.sources));
        }
        reading.sources.warnings.iter().for_each(|warning| say!("warning: {warning}"));
        faults.iter().for_each(|fault| say!("problem: {fault}"));
        proxy.iter().flat_map(nginx::Report::lines).for_each(|line| say!("{line}"));
        if is_valid {
            let warnings = reading.sources.warnings.len() + proxy.as_ref().map_or(0, nginx::Report::warnings);
            match warnings {
                0 => say!("ok"),
                1 => say!("ok, 1 warning"),
                many => say!("ok, {many} warnings"),
            }
        }
    }
    if is_valid { ExitCode::SUCCESS } else { ExitCode::from(exit::CONFIGURATION) }
}

struct Row<'a> {
    name: &'static str,
    value: String,
    source: &'a Source,
}

fn rows(reading: &Reading) -> Vec<Row<'_>> {
    let given = SETTINGS.iter().filter_map(|setting| Some((setting, reading.sources.get(setting.name)?)));
    let rows = given.map(|(setting, given)| Row {
        name: setting.name,
        value: setting.kind.shown(&given.text),
        source: &given.source,
    });
    rows.collect()
}
