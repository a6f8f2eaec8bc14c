//! What came out: the costs of each round, summed up as a table and as ratios. Ratios are of one round each, and their median is told:
//! what a machine does in one minute and not in the next falls out of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use klatch_tests::measure::Spread;

use crate::subjects::{Part, Subject};

/// Of a turn, in µs of CPU time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    parts: [f64; Part::ALL.len()],
}

impl Cost {
    pub fn add(&mut self, part: Part, micros: f64) {
        self.parts[part as usize] += micros;
    }

    pub fn of(&self, part: Part) -> f64 {
        self.parts[part as usize]
    }

    pub fn total(&self) -> f64 {
        self.parts.iter().sum()
    }
}

/// Of each subject one cost a round.
pub struct Results {
    costs: BTreeMap<Subject, Vec<Cost>>,
}

/// What all others are measured by.
const YARDSTICKS: [Subject; 3] = [Subject::Echo, Subject::Append, Subject::Stateless];

/// What is worth a sentence.
const RATIOS: [(Subject, Subject); 9] = [
    (Subject::Klatch, Subject::Append),
    (Subject::Klatch, Subject::Stateless),
    (Subject::Klatch, Subject::Optimistic),
    (Subject::Klatch, Subject::Locking),
    (Subject::Forwarded, Subject::Klatch),
    (Subject::KlatchPlainNginx, Subject::EchoNginx),
    (Subject::KlatchNginx, Subject::KlatchPlainNginx),
    (Subject::KlatchNginx, Subject::EchoNginx),
    (Subject::Flask, Subject::KlatchNginx),
];

impl Results {
    pub fn new(subjects: impl IntoIterator<Item = Subject>) -> Self {
        Self { costs: subjects.into_iter().map(|subject| (subject, Vec::new())).collect() }
    }

    pub fn add(&mut self, subject: Subject, cost: Cost) {
        self.costs.entry(subject).or_default().push(cost);
    }

    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.costs.keys().copied()
    }

    pub fn spread(&self, subject: Subject, of: impl Fn(&Cost) -> f64) -> Spread {
        Spread::of(self.costs.get(&subject).into_iter().flatten().map(of).collect())
    }

    /// How often the second goes into the first.
    pub fn ratio(&self, subject: Subject, yardstick: Subject) -> Option<f64> {
        let (these, those) = (self.costs.get(&subject)?, self.costs.get(&yardstick)?);
        let ratios = these.iter().zip(those).map(|(this, that)| this.total() / that.total());
        Some(Spread::of(ratios.collect()).median)
    }

    /// In Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from("| subject | CPU-µs a turn | least–most | server | Redis | NGINX |");
        for yardstick in YARDSTICKS {
            let _ = write!(text, " × {} |", yardstick.title());
        }
        text.push_str("\n| :-- | --: | --: | --: | --: | --: | --: | --: | --: |\n");
        for subject in self.subjects() {
            let Spread { median, least, most } = self.spread(subject, Cost::total);
            let _ = write!(text, "| {} | **{median:.1}** | {least:.1}–{most:.1} |", subject.title());
            for part in Part::ALL {
                let micros = self.spread(subject, |cost| cost.of(part)).median;
                let _ = if micros > 0.0 { write!(text, " {micros:.1} |") } else { write!(text, " |") };
            }
            for yardstick in YARDSTICKS {
                let _ = match self.ratio(subject, yardstick) {
                    Some(ratio) => write!(text, " {ratio:.2} |"),
                    None => write!(text, " |"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// A line each, in Markdown.
    pub fn ratios(&self) -> String {
        let ratio = |(subject, yardstick): (Subject, Subject)| {
            let ratio = self.ratio(subject, yardstick)?;
            Some(format!("- {} is {ratio:.2} × {}.\n", subject.title(), yardstick.title()))
        };
        RATIOS.into_iter().filter_map(ratio).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_one_round_each() {
        let mut results = Results::new([Subject::Echo, Subject::Append]);
        for (echo, server, redis) in [(10.0, 10.0, 10.0), (100.0, 150.0, 50.0), (10.0, 25.0, 5.0)] {
            let (mut one, mut other) = (Cost::default(), Cost::default());
            one.add(Part::Server, echo);
            other.add(Part::Server, server);
            other.add(Part::Redis, redis);
            results.add(Subject::Echo, one);
            results.add(Subject::Append, other);
        }
        assert_eq!(results.ratio(Subject::Append, Subject::Echo), Some(2.0));
        let row = "| append | **30.0** | 20.0–200.0 | 25.0 | 10.0 | | 2.00 | 1.00 | |";
        assert!(results.table().lines().any(|line| line == row), "{}", results.table());
        assert_eq!(results.ratio(Subject::Append, Subject::Klatch), None);
    }
}
