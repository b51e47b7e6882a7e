//! The trend of measurements over time: the first value, the last value, and the growth. It only computes values.

use serde_json::{Value, json};

/// Seconds of an hour.
const HOUR: f64 = 3_600.0;

/// The trend of the measurements of several processes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// The average of the first measurements of the processes.
    pub(super) start: f64,
    /// The average of the last measurements.
    pub(super) end: f64,
    /// The growth per hour: a least-squares fit over all processes, each around its own mean. So the weight of a
    /// process is the cube of the time for which it was measured.
    pub(super) slope: f64,
    /// The standard error of the slope.
    pub(super) std_error: f64,
    /// The longest time for which a process was measured, in hours.
    pub(super) hours: f64,
}

impl Trend {
    /// Fits the measurements of each process, pairs of a time in seconds and a value. `None` if no process has two of
    /// them.
    pub(super) fn fit(all: &[Vec<(f64, f64)>]) -> Option<Self> {
        let (mut xx, mut xy, mut yy, mut free, mut hours) = (0.0, 0.0, 0.0, -1.0, 0.0_f64);
        let (mut start, mut end, mut count) = (0.0, 0.0, 0.0);
        for one in all {
            let (Some(first), Some(last)) = (one.first(), one.last()) else {
                continue;
            };
            let n = one.len() as f64;
            let mean = one
                .iter()
                .fold((0.0, 0.0), |sum, at| (sum.0 + at.0 / n, sum.1 + at.1 / n));
            for (time, figure) in one {
                let (x, y) = ((time - mean.0) / HOUR, figure - mean.1);
                (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
            }
            // Each mean costs one degree of freedom, and so does the slope.
            free += n - 1.0;
            (start, end, count) = (start + first.1, end + last.1, count + 1.0);
            hours = hours.max((last.0 - first.0) / HOUR);
        }
        if xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let rest = (yy - slope * xy).max(0.0);
        Some(Self {
            start: start / count,
            end: end / count,
            slope,
            std_error: (rest / f64::max(free, 1.0) / xx).sqrt(),
            hours,
        })
    }

    /// The growth per hour that is statistically certain: the slope minus two standard errors, at least 0.
    pub(super) fn certain_slope(&self) -> f64 {
        (self.slope - 2.0 * self.std_error).max(0.0)
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({"start": tenths(self.start), "end": tenths(self.end), "slope_per_hour": tenths(self.slope)})
    }
}

impl std::fmt::Display for Trend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, end, slope, .. } = self;
        // Zero is shown without a minus sign.
        let slope = tenths(*slope) + 0.0;
        write!(f, "start={start:.1} end={end:.1} slope_per_hour={slope:.1}")
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A figure every ten seconds.
    fn line(count: u32, figure: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..count)
            .map(|n| f64::from(n) * 10.0)
            .map(|at| (at, figure(at)))
            .collect()
    }

    #[test]
    fn the_trend_of_a_straight_line_is_its_slope() {
        let trend = Trend::fit(&[line(180, |at| 30.0 + at / 360.0)]).unwrap();
        assert!((trend.slope - 10.0).abs() < 1e-6 && trend.std_error < 1e-6, "{trend:?}");
        assert!((trend.certain_slope() - 10.0).abs() < 1e-6);
        assert_eq!(trend.to_string(), "start=30.0 end=35.0 slope_per_hour=10.0");
        assert!((trend.hours - 1_790.0 / 3_600.0).abs() < 1e-9);
    }

    #[test]
    fn processes_with_different_constant_values_have_no_slope() {
        let late = line(10, |_| 90.0)
            .into_iter()
            .map(|(at, figure)| (at + 500.0, figure))
            .collect();
        let trend = Trend::fit(&[line(20, |_| 30.0), late]).unwrap();
        assert!(trend.slope.abs() < 1e-9, "{trend:?}");
        assert_eq!(trend.to_string(), "start=60.0 end=60.0 slope_per_hour=0.0");
    }

    #[test]
    fn random_variation_is_no_growth() {
        let mut rng = fastrand::Rng::with_seed(3);
        let noise: Vec<_> = line(180, |_| 40.0)
            .into_iter()
            .map(|(at, y)| (at, y + 5.0 * rng.f64()))
            .collect();
        let trend = Trend::fit(&[noise]).unwrap();
        assert!(trend.std_error > 0.1 && trend.certain_slope() < 1.0, "{trend:?}");
    }

    #[test]
    fn a_single_measurement_has_no_trend() {
        assert_eq!(Trend::fit(&[]), None);
        assert_eq!(Trend::fit(&[vec![(5.0, 1.0)], vec![]]), None);
    }
}
