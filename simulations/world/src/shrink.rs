//! Cuts the plan of a world that fails down to what it fails of (delta debugging): parts are left out in ever smaller
//! groups, and sizes made smaller, as long as the world fails for the same reason.

use std::process::ExitCode;

use anyhow::Result;
use klatch_world::plan::{Plan, Reduction};

use crate::Kind;
use crate::many::{live, replay};

struct Search<'a> {
    kind: &'a Kind,
    plan: Plan,
    /// How it fails, without what differs from world to world.
    reason: String,
    tries_left: usize,
    best: Reduction,
}

pub fn shrink(kind: &Kind, plan: Plan, tries: usize) -> Result<ExitCode> {
    let Some(failure) = live(plan.seed, kind, &Reduction::default())?.failure else {
        println!("seed {} does not fail", plan.seed);
        return Ok(ExitCode::FAILURE);
    };
    println!("{} parts: {failure}", plan.parts().len());
    let best = Reduction { only: Some(plan.parts()), ..Reduction::default() };
    let mut search = Search { kind, reason: reason(&failure), plan, tries_left: tries, best };
    // What one step leaves out may make room for another.
    loop {
        let before = search.best.clone();
        search.leave_out_parts()?;
        search.make_smaller()?;
        if search.best == before || search.tries_left == 0 {
            break;
        }
    }
    let failure = live(search.plan.seed, kind, &search.best)?.failure.unwrap_or_default();
    println!("cargo run --release -p klatch-world -- {}   # {failure}", replay(search.plan.seed, kind, &search.best));
    Ok(ExitCode::SUCCESS)
}

/// The failure's words, without names and numbers.
fn reason(failure: &str) -> String {
    let is_word = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == ',');
    failure.split(' ').filter(is_word).collect::<Vec<_>>().join(" ")
}

impl Search<'_> {
    /// Takes it for the best, where the world still fails so.
    fn try_out(&mut self, reduction: Reduction) -> Result<bool> {
        if self.tries_left == 0 || reduction == self.best {
            return Ok(false);
        }
        self.tries_left -= 1;
        let failure = live(self.plan.seed, self.kind, &reduction)?.failure;
        let is_same = failure.is_some_and(|failure| reason(&failure) == self.reason);
        if is_same {
            println!("{}", replay(self.plan.seed, self.kind, &reduction));
            self.best = reduction;
        }
        Ok(is_same)
    }

    fn leave_out_parts(&mut self) -> Result<()> {
        let parts = |search: &Self| search.best.only.clone().unwrap_or_default();
        let mut group = parts(self).len().div_ceil(2);
        while group > 0 {
            let mut from = 0;
            while from < parts(self).len() {
                let mut only = parts(self);
                only.drain(from..(from + group).min(only.len()));
                // What was left out has made way for the group behind it.
                if !self.try_out(Reduction { only: Some(only), ..self.best.clone() })? {
                    from += group;
                }
            }
            group /= 2;
        }
        Ok(())
    }

    fn make_smaller(&mut self) -> Result<()> {
        while self.fewer(|best| &mut best.nodes, self.plan.nodes, 2)? {}
        while self.fewer(|best| &mut best.clients, self.plan.clients, 1)? {}
        while self.fewer(|best| &mut best.conversations, self.plan.conversations, 1)? {}
        let secs = |search: &Self| search.best.lasts_secs.unwrap_or(search.plan.lasts.as_secs() + 1);
        for (part, of) in [(1, 2), (3, 4), (9, 10)] {
            while self.try_out(Reduction { lasts_secs: Some((secs(self) * part / of).max(1)), ..self.best.clone() })? {}
        }
        Ok(())
    }

    fn fewer(&mut self, size: fn(&mut Reduction) -> &mut Option<usize>, whole: usize, least: usize) -> Result<bool> {
        let mut reduction = self.best.clone();
        let now = size(&mut reduction).unwrap_or(whole);
        *size(&mut reduction) = Some(now.saturating_sub(1));
        if now <= least { Ok(false) } else { self.try_out(reduction) }
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn two_failures_of_one_kind_have_one_reason() {
        let one = "conv_01 turn 3 says \"0:c1-2 \", instead of \"0:c1-3 \"";
        let other = "conv_7f turn 12 says \"0:c4-9 1:c4-9 \", instead of \"\"";
        assert_eq!(reason(one), reason(other));
        assert_ne!(reason(one), reason("conv_01 turn 3 ended twice"));
    }
}
