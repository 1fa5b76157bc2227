//! Figures and their budgets.

use std::fmt;

use serde_json::{Value, json};

use crate::measures::Samples;
use crate::usage::Spent;

/// Quartiles of fewer samples say nothing.
const QUARTILES_OF_MIN: usize = 5;

/// One value measured once.
#[derive(Clone, Copy)]
pub struct Sample {
    value: f64,
    /// For processor time: how much of it was spent outside the kernel.
    user_share: Option<f64>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self { value, user_share: None }
    }
}

impl From<Spent> for Sample {
    fn from(spent: Spent) -> Self {
        Self { value: spent.micros, user_share: Some(spent.user_share) }
    }
}

#[derive(Clone, Copy)]
pub enum Budget {
    AtMost(f64),
    AtLeast(f64),
    /// Of holdfast to the floor.
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

pub struct Figure {
    name: String,
    unit: &'static str,
    samples: Samples<Sample>,
    pub budget: Option<Budget>,
}

impl Figure {
    pub fn new(name: &str, unit: &'static str, samples: Samples<Sample>) -> Self {
        Self { name: name.to_owned(), unit, samples, budget: None }
    }

    pub fn within(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    pub fn holdfast(&self) -> Sample {
        typical(&self.samples.holdfast)
    }

    pub fn floor(&self) -> Sample {
        typical(&self.samples.floor)
    }

    /// Of each sample to its neighbour, in order of size. Empty where the floor's figure is nothing,
    /// as that of its idle sockets.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.samples.holdfast.iter().zip(&self.samples.floor);
        let mut ratios: Vec<f64> = pairs
            .filter(|(_, floor)| floor.value > 0.0)
            .map(|(holdfast, floor)| holdfast.value / floor.value)
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// The median of the neighbours' ratios: unlike the ratio of the medians, it does not see what
    /// changes on the machine meanwhile.
    pub fn ratio(&self) -> Option<f64> {
        quantile(&self.ratios(), 0.5)
    }

    /// Half of the ratios lie between these.
    pub fn quartiles(&self) -> Option<(f64, f64)> {
        let ratios = self.ratios();
        if ratios.len() < QUARTILES_OF_MIN {
            return None;
        }
        quantile(&ratios, 0.25).zip(quantile(&ratios, 0.75))
    }

    pub fn kept(&self) -> Option<bool> {
        Some(match self.budget? {
            Budget::AtMost(most) => self.holdfast().value <= most,
            Budget::AtLeast(least) => self.holdfast().value >= least,
            Budget::RatioAtMost(most) => self.ratio()? <= most,
            Budget::RatioAtLeast(least) => self.ratio()? >= least,
        })
    }

    pub fn title(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, self.unit) }
    }

    pub fn to_json(&self, measure: &str) -> Value {
        let values = |samples: &[Sample]| -> Vec<f64> { samples.iter().map(|sample| sample.value).collect() };
        let side = |typical: Sample, samples: &[Sample]| json!({"value": typical.value, "userShare": typical.user_share, "samples": values(samples)});
        json!({
            "measure": measure,
            "name": self.name,
            "unit": self.unit,
            "holdfast": side(self.holdfast(), &self.samples.holdfast),
            "floor": side(self.floor(), &self.samples.floor),
            "ratio": self.ratio(),
            "ratioQuartiles": self.quartiles().map(|(lower, upper)| [lower, upper]),
            "budget": self.budget.map(|budget| budget.to_string()),
            "kept": self.kept(),
        })
    }
}

/// The medians.
fn typical(samples: &[Sample]) -> Sample {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5)
    };
    Sample {
        value: median(samples.iter().map(|sample| sample.value).collect()).unwrap_or(f64::NAN),
        user_share: median(samples.iter().filter_map(|sample| sample.user_share).collect()),
    }
}

/// Between two values, what lies in proportion between them.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(out, "≤ {}", readable(*most)),
            Self::AtLeast(least) => write!(out, "≥ {}", readable(*least)),
            Self::RatioAtMost(most) => write!(out, "ratio ≤ {most}"),
            Self::RatioAtLeast(least) => write!(out, "ratio ≥ {least}"),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&readable(self.value))?;
        self.user_share.map_or(Ok(()), |share| write!(out, " ({:.0} % user)", share * 100.0))
    }
}

/// Three digits, or all of a large whole number in groups; a dash for what was not measured.
fn readable(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(holdfast: &[f64], floor: &[f64], budget: Budget) -> Figure {
        let samples = |values: &[f64]| values.iter().map(|value| Sample::from(*value)).collect();
        let samples = Samples { holdfast: samples(holdfast), floor: samples(floor) };
        Figure::new("a cost", "µs", samples).within(budget)
    }

    #[test]
    fn neighbours_are_compared() {
        let figure = figure(&[4.0, 12.0, 5.0], &[3.2, 10.0, 4.0], Budget::RatioAtMost(1.3));
        assert_eq!(figure.holdfast().value, 5.0);
        assert_eq!(figure.ratio(), Some(1.25));
        assert_eq!(figure.kept(), Some(true));
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.25), Some(7.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.75), Some(4.0));
    }

    #[test]
    fn a_floor_of_nothing_has_no_ratio_and_leaves_absolute_budgets() {
        assert_eq!(figure(&[0.5], &[0.0], Budget::RatioAtMost(1.0)).kept(), None);
        assert_eq!(figure(&[0.5], &[0.0], Budget::AtMost(0.4)).kept(), Some(false));
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(readable(1_234_567.4), "1 234 567");
        assert_eq!(readable(15_000.0), "15 000");
        assert_eq!(readable(2.345), "2.35");
    }

    #[test]
    fn a_figure_may_have_no_floor() {
        let figure = figure(&[0.5], &[], Budget::AtMost(0.6));
        assert_eq!((figure.kept(), figure.floor().to_string()), (Some(true), "–".to_owned()));
    }
}
