//! How long things took, counted in steps of one per cent: a million of them take no more room than one.

use std::time::Duration;

const STEP: f64 = 1.01;

#[derive(Debug, Default)]
pub struct Times {
    /// How many took so many steps above a microsecond.
    counts: Vec<u64>,
    pub slowest: Duration,
}

impl Times {
    pub fn add(&mut self, took: Duration) {
        let step = ((took.as_secs_f64() * 1e6).max(1.0).ln() / STEP.ln()) as usize;
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.slowest = self.slowest.max(took);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What this share of them stayed below, to one per cent; nothing where there are none.
    pub fn at(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        let above = STEP.powi(i32::try_from(step).ok()? + 1) / 1e6;
        Some(Duration::from_secs_f64(above).min(self.slowest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_them_stays_below() {
        let mut times = Times::default();
        assert_eq!((times.at(0.5), times.count()), (None, 0));
        for ms in 1..=100 {
            times.add(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let at = times.at(share).unwrap().as_secs_f64() * 1000.0;
            assert!((ms..=ms * 1.011).contains(&at), "{share}: {at}");
        }
        times.add(Duration::ZERO);
        times.add(Duration::from_secs(86_400));
        assert_eq!((times.count(), times.slowest), (102, Duration::from_secs(86_400)));
        assert!(times.counts.len() < 3000, "{}", times.counts.len());
    }
}
