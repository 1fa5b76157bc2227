//! The table and the JSON.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use crate::figure::Figure;
use crate::options::Options;

pub struct Report {
    machine: Machine,
    sockets: usize,
    quick: bool,
    sections: Vec<(&'static str, Vec<Figure>)>,
}

struct Machine {
    processors: usize,
    kernel: String,
    /// Runnable tasks in the last minute, before and after: far above what the benchmark itself
    /// brings, somebody else was at work.
    load_before: String,
    load_after: String,
}

impl Report {
    pub fn begin(options: &Options) -> Self {
        Self {
            machine: Machine {
                processors: std::thread::available_parallelism().map_or(1, usize::from),
                kernel: first_words("/proc/sys/kernel/osrelease", 1),
                load_before: first_words("/proc/loadavg", 1),
                load_after: String::new(),
            },
            sockets: options.sockets,
            quick: options.quick,
            sections: Vec::new(),
        }
    }

    pub fn add(&mut self, measure: &'static str, figures: Vec<Figure>) {
        self.sections.push((measure, figures));
    }

    pub fn end(mut self) -> Self {
        self.machine.load_after = first_words("/proc/loadavg", 1);
        self
    }

    pub fn to_json(&self) -> String {
        let figures: Vec<Value> = self
            .sections
            .iter()
            .flat_map(|(measure, figures)| figures.iter().map(|figure| figure.to_json(measure)))
            .collect();
        let report = json!({
            "machine": {
                "processors": self.machine.processors,
                "kernel": self.machine.kernel,
                "loadBefore": self.machine.load_before,
                "loadAfter": self.machine.load_after,
            },
            "sockets": self.sockets,
            "quick": self.quick,
            "figures": figures,
        });
        format!("{report:#}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            out,
            "{} processors, Linux {}, load {} before and {} after, {} sockets{}; medians",
            machine.processors,
            machine.kernel,
            machine.load_before,
            machine.load_after,
            self.sockets,
            if self.quick { ", quick" } else { "" },
        )?;
        for (measure, figures) in &self.sections {
            writeln!(out)?;
            row(out, measure, ["holdfast", "floor", "ratio", "quartiles", "budget"], "")?;
            for figure in figures {
                let ratio = figure.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
                let quartiles = figure.quartiles();
                let quartiles = quartiles.map_or_else(String::new, |(lower, upper)| format!("{lower:.2}–{upper:.2}"));
                let budget = figure.budget.map_or_else(String::new, |budget| budget.to_string());
                let kept = figure.kept().map_or("", |kept| if kept { "✓" } else { "✗" });
                let cells = [&figure.holdfast().to_string(), &figure.floor().to_string(), &ratio, &quartiles, &budget];
                row(out, &format!("  {}", figure.title()), cells.map(String::as_str), kept)?;
            }
        }
        Ok(())
    }
}

fn row(out: &mut fmt::Formatter<'_>, title: &str, cells: [&str; 5], mark: &str) -> fmt::Result {
    let [holdfast, floor, ratio, quartiles, budget] = cells;
    let line = format!("{title:<54} {holdfast:>17} {floor:>17} {ratio:>6} {quartiles:>10}  {budget:<12} {mark}");
    writeln!(out, "{}", line.trim_end())
}

fn first_words(path: &str, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}
