//! A set of numbers in a few.

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub mean: f64,
    pub p1: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Summary {
    /// All zero where there is nothing.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let Some(max) = sorted.last().copied() else { return Self::default() };
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Self { mean, p1: at(0.01), p50: at(0.5), p99: at(0.99), max }
    }

    /// How far the fullest is above the mean.
    pub fn max_over_mean(&self) -> f64 {
        self.max / self.mean
    }
}
