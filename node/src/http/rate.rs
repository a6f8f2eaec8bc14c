//! Requests per minute and tenant: a bucket that fills evenly, kept as one number per tenant (the time at which it
//! is full again). Pure: `now` is passed in.
//!
//! Nodes tell one another now and then what was spent where, so the limit is the whole cluster's; between two tellings each
//! knows only of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Tenants counted at once. Tokens name tenants, so strangers cannot fill the table; beyond it those go first whose
/// buckets are full, and then all.
const TENANTS_MAX: usize = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Rates {
    /// When the tenant's bucket is full again, on the caller's clock.
    full_at: HashMap<Arc<str>, Duration>,
    /// Taken here since it was last told.
    untold: HashMap<Arc<str>, u32>,
}

/// What a tenant has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub limit: u32,
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
    /// Refused; there is room for one request after so long.
    pub wait: Option<Duration>,
}

impl Rates {
    /// Takes one request out of the tenant's bucket, if it has one. A limit of 0 lets nobody in.
    pub fn take(&mut self, tenant: &Arc<str>, limit: u32, now: Duration) -> Grant {
        if limit == 0 {
            return Grant { limit, remaining: 0, reset: MINUTE, wait: Some(MINUTE) };
        }
        let each = MINUTE / limit;
        let full_at = self.full_at.get(tenant).copied().unwrap_or_default().max(now);
        let after = full_at + each;
        if after - now > each * limit {
            let reset = full_at - now;
            return Grant { limit, remaining: 0, reset, wait: Some(after - now - each * limit) };
        }
        match self.full_at.get_mut(tenant) {
            Some(known) => *known = after,
            None => {
                self.make_room(now);
                self.full_at.insert(tenant.clone(), after);
            }
        }
        match self.untold.get_mut(tenant) {
            Some(untold) => *untold += 1,
            None => drop(self.untold.insert(tenant.clone(), 1)),
        }
        let reset = after - now;
        let used = reset.as_nanos().div_ceil(each.as_nanos().max(1)) as u32;
        Grant { limit, remaining: limit.saturating_sub(used), reset, wait: None }
    }

    /// What was taken here since the last call, to be told to the other nodes.
    pub fn tell(&mut self) -> Vec<(Arc<str>, u32)> {
        self.untold.drain().collect()
    }

    /// Other nodes let so many through. A bucket is never emptier than empty: what was too much is not held against
    /// the tenant later.
    pub fn taken_elsewhere(&mut self, tenant: &Arc<str>, count: u32, limit: u32, now: Duration) {
        if limit == 0 {
            return;
        }
        let full_at = self.full_at.get(tenant).copied().unwrap_or_default().max(now);
        let after = full_at + (MINUTE / limit).saturating_mul(count);
        self.make_room(now);
        self.full_at.insert(tenant.clone(), after.min(now + MINUTE));
    }

    fn make_room(&mut self, now: Duration) {
        if self.full_at.len() < TENANTS_MAX {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= TENANTS_MAX {
            self.full_at.clear();
            self.untold.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn three_a_minute_are_three_at_once_and_then_one_every_twenty_seconds() {
        let (mut rates, tenant) = (Rates::default(), Arc::from("tiny"));
        let remaining: Vec<u32> = (0..3).map(|n| rates.take(&tenant, 3, at(n)).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        assert_eq!(rates.take(&tenant, 3, at(3)).wait, Some(at(19_997)));
        assert_eq!(rates.take(&tenant, 3, at(20_000)).wait, None);
        assert!(rates.take(&tenant, 3, at(20_001)).wait.is_some());
    }

    #[test]
    fn what_was_spent_elsewhere_counts_and_is_not_told_again() {
        let (mut here, mut there, tenant) = (Rates::default(), Rates::default(), Arc::from("tiny"));
        here.take(&tenant, 3, at(0));
        here.take(&tenant, 3, at(0));
        let told = here.tell();
        assert_eq!(told, [(tenant.clone(), 2)]);
        there.taken_elsewhere(&tenant, 2, 3, at(0));
        assert_eq!(there.take(&tenant, 3, at(0)).remaining, 0);
        assert!(there.take(&tenant, 3, at(0)).wait.is_some());
        assert_eq!((here.tell(), there.tell()), (vec![], vec![(tenant.clone(), 1)]));
        there.taken_elsewhere(&tenant, 100, 3, at(0));
        assert_eq!(there.take(&tenant, 3, at(20_000)).wait, None, "it pays for more than it had");
    }

    #[test]
    fn tenants_do_not_share() {
        let mut rates = Rates::default();
        assert_eq!(rates.take(&Arc::from("a"), 1, at(0)).wait, None);
        assert_eq!(rates.take(&Arc::from("b"), 1, at(0)).wait, None);
        assert!(rates.take(&Arc::from("a"), 1, at(1)).wait.is_some());
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let (mut rates, tenant) = (Rates::default(), Arc::from("t"));
        rates.take(&tenant, 1, at(0));
        for n in 0..100 {
            assert!(rates.take(&tenant, 1, at(n)).wait.is_some());
        }
        assert_eq!(rates.take(&tenant, 1, at(60_000)).wait, None);
    }

    #[test]
    fn the_table_stays_within_its_limit() {
        let mut rates = Rates::default();
        for n in 0..TENANTS_MAX + 10 {
            rates.take(&Arc::from(n.to_string()), 1, at(0));
        }
        assert!(rates.full_at.len() <= TENANTS_MAX);
    }

    proptest! {
        #[test]
        fn no_minute_lets_through_more_than_twice_the_limit(
            gaps in proptest::collection::vec(0u64..5_000, 1..200), limit in 1u32..50,
        ) {
            let (mut rates, tenant, mut now) = (Rates::default(), Arc::from("t"), 0);
            let mut let_through = Vec::new();
            for gap in gaps {
                now += gap;
                if rates.take(&tenant, limit, at(now)).wait.is_none() { let_through.push(now) }
            }
            for start in &let_through {
                let within = let_through.iter().filter(|time| (*start..start + 60_000).contains(time)).count();
                prop_assert!(within as u32 <= 2 * limit);
            }
        }
    }
}
