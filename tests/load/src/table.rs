//! Tables in Markdown, the form in which every measurement is told.

use std::fmt;

/// A heading's worth of rows.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const COLUMNS: usize>(columns: [&str; COLUMNS]) -> Self {
        Self { columns: columns.map(str::to_owned).into(), rows: Vec::new() }
    }

    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        assert_eq!(COLUMNS, self.columns.len(), "a row has as many cells as the table has columns");
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// Of values in order, the one below which `percent` of them lie.
pub fn percentile(ordered: &[f64], percent: f64) -> f64 {
    let place = (ordered.len() as f64 * percent / 100.0) as usize;
    ordered.get(place.min(ordered.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(["turns", "µs"]);
        table.row(["7".to_owned(), "1.5".to_owned()]);
        assert_eq!(table.to_string(), "| turns | µs |\n|---|---|\n| 7 | 1.5 |\n");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!([0.0, 50.0, 99.0, 100.0].map(|percent| percentile(&values, percent)), [0.0, 50.0, 99.0, 99.0]);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
