//! Slows logins down: per account, per address, and per account from an address that knows its password. Pure: time
//! is given. Per node and in memory: an attacker with N nodes to talk to has N times the attempts.
//!
//! An attempt counts when it begins, so that a thousand at once are not all let in before the first has failed; a
//! success gives back what it took. Once the free attempts are used up, each further one doubles the wait, up to a
//! minute. A refused attempt counts nothing: who waits as long as he was told is let in. After a quarter of an
//! hour without an attempt all is forgotten.
//!
//! A stranger cannot lock an account for good: the wait is a minute at most; an address from which the account has
//! logged in (for a day) has a count of its own and does not wait for what others did; and refresh tokens are not
//! throttled at all. What is left to him: he can delay, while he goes on, a login from an address that is new.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::generations::Generations;

const FIRST_DELAY_MS: u64 = 1_000;
const DELAY_MS_MAX: u64 = 60_000;
const FORGET_AFTER_MS: u64 = 15 * 60_000;
const KNOWN_FOR_MS: u64 = 24 * 3_600_000;
/// People mistype, and their programs try twice.
const FREE_PER_ACCOUNT: u32 = 5;
/// An office behind one address, all of whom come to work at nine.
const FREE_PER_ADDRESS: u32 = 50;
/// Rows of each table; a name is 64 characters at most. To push a row out takes as many attempts from other names or
/// addresses, each of which costs a password hash.
const ROWS_MAX: usize = 20_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempts {
    count: u32,
    last_ms: u64,
}

impl Attempts {
    /// What is left of the wait.
    fn wait_ms(&self, free: u32, now_ms: u64) -> u64 {
        let Some(doublings) = self.count.checked_sub(free) else {
            return 0;
        };
        let delay = FIRST_DELAY_MS.checked_shl(doublings.min(32)).map_or(DELAY_MS_MAX, |ms| ms.min(DELAY_MS_MAX));
        (self.last_ms.saturating_add(delay)).saturating_sub(now_ms)
    }

    fn attempt(&mut self, now_ms: u64) {
        *self = Self { count: self.count.saturating_add(1), last_ms: now_ms };
    }

    fn at(self, now_ms: u64) -> Self {
        if now_ms.saturating_sub(self.last_ms) >= FORGET_AFTER_MS { Self::default() } else { self }
    }
}

pub struct Throttle {
    tables: Mutex<Tables>,
}

struct Tables {
    accounts: Generations<String, Attempts>,
    addresses: Generations<IpAddr, Attempts>,
    known: Generations<(String, IpAddr), Known>,
}

/// The account has logged in from there.
#[derive(Clone, Copy)]
struct Known {
    since_ms: u64,
    attempts: Attempts,
}

impl Default for Throttle {
    fn default() -> Self {
        let tables = Tables {
            accounts: Generations::new(ROWS_MAX),
            addresses: Generations::new(ROWS_MAX),
            known: Generations::new(ROWS_MAX),
        };
        Self { tables: Mutex::new(tables) }
    }
}

impl Throttle {
    /// Counts the attempt, or says how long to wait before the next.
    pub fn attempt(&self, account: &str, address: IpAddr, now_ms: u64) -> Result<(), Duration> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).attempt(account, network(address), now_ms)
    }

    /// The attempt was right: it is given back, and the address is known from now on.
    pub fn succeeded(&self, account: &str, address: IpAddr, now_ms: u64) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).succeeded(account, network(address), now_ms);
    }

    /// The attempt was not made after all.
    pub fn withdrawn(&self, account: &str, address: IpAddr) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).give_back(account, network(address));
    }
}

impl Tables {
    fn attempt(&mut self, account: &str, address: IpAddr, now_ms: u64) -> Result<(), Duration> {
        let pair = (account.to_owned(), address);
        let fresh = |known: &Known| now_ms.saturating_sub(known.since_ms) < KNOWN_FOR_MS;
        let known = self.known.get(&pair).copied().filter(fresh);
        let of_account = match known {
            Some(known) => known.attempts.at(now_ms),
            None => row(&mut self.accounts, account, now_ms),
        };
        let of_address = row(&mut self.addresses, &address, now_ms);
        let wait = of_account.wait_ms(FREE_PER_ACCOUNT, now_ms).max(of_address.wait_ms(FREE_PER_ADDRESS, now_ms));
        if wait > 0 {
            return Err(Duration::from_millis(wait));
        }
        match known {
            Some(known) => self.known.insert(pair, Known { attempts: counted(of_account, now_ms), ..known }),
            None => self.accounts.insert(account.to_owned(), counted(of_account, now_ms)),
        }
        self.addresses.insert(address, counted(of_address, now_ms));
        Ok(())
    }

    fn succeeded(&mut self, account: &str, address: IpAddr, now_ms: u64) {
        self.give_back(account, address);
        let known = Known { since_ms: now_ms, attempts: Attempts::default() };
        self.known.insert((account.to_owned(), address), known);
    }

    /// One attempt, not all: who knows one password could otherwise clear his address between guesses at others.
    fn give_back(&mut self, account: &str, address: IpAddr) {
        let of_account = match self.known.get(&(account.to_owned(), address)) {
            Some(known) => Some(&mut known.attempts),
            None => self.accounts.get(account),
        };
        for attempts in of_account.into_iter().chain(self.addresses.get(&address)) {
            attempts.count = attempts.count.saturating_sub(1);
        }
    }
}

fn counted(mut attempts: Attempts, now_ms: u64) -> Attempts {
    attempts.attempt(now_ms);
    attempts
}

fn row<K, Q>(table: &mut Generations<K, Attempts>, key: &Q, now_ms: u64) -> Attempts
where
    K: Eq + Hash + std::borrow::Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    table.get(key).copied().unwrap_or_default().at(now_ms)
}

/// What one person can have many of counts as one: an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn stranger(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    #[test]
    fn the_wait_doubles_after_the_free_attempts_up_to_a_minute() {
        let throttle = Throttle::default();
        let mut now = 0;
        for _ in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", HOME, now).unwrap();
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = throttle.attempt("ada", HOME, now).unwrap_err();
            assert_eq!(wait, Duration::from_secs(seconds));
            now += wait.as_millis() as u64;
            throttle.attempt("ada", HOME, now).unwrap();
        }
    }

    #[test]
    fn a_refused_attempt_does_not_lengthen_the_wait() {
        let throttle = Throttle::default();
        for n in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", stranger(n), 0).unwrap();
        }
        for now in 0..1_000 {
            assert!(throttle.attempt("ada", stranger(9), now).is_err());
        }
        assert!(throttle.attempt("ada", stranger(9), 1_000).is_ok());
    }

    #[test]
    fn one_address_that_tries_many_names_is_slowed_down() {
        let throttle = Throttle::default();
        for n in 0..FREE_PER_ADDRESS {
            throttle.attempt(&format!("name-{n}"), HOME, 0).unwrap();
        }
        assert!(throttle.attempt("another", HOME, 0).is_err());
        assert!(throttle.attempt("another", stranger(1), 0).is_ok());
    }

    #[test]
    fn a_known_address_does_not_wait_for_what_strangers_did() {
        let throttle = Throttle::default();
        throttle.attempt("ada", HOME, 0).unwrap();
        throttle.succeeded("ada", HOME, 0);
        for n in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", stranger(n), 0).unwrap();
        }
        assert!(throttle.attempt("ada", stranger(99), 0).is_err());
        assert!(throttle.attempt("ada", HOME, 0).is_ok());
    }

    #[test]
    fn a_known_address_has_no_more_guesses_than_another() {
        let throttle = Throttle::default();
        throttle.attempt("ada", HOME, 0).unwrap();
        throttle.succeeded("ada", HOME, 0);
        for _ in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", HOME, 0).unwrap();
        }
        assert!(throttle.attempt("ada", HOME, 0).is_err());
        assert!(throttle.attempt("ada", HOME, KNOWN_FOR_MS).is_ok());
    }

    #[test]
    fn a_success_gives_back_its_own_attempt_and_no_other() {
        let throttle = Throttle::default();
        for n in 0..FREE_PER_ADDRESS - 1 {
            throttle.attempt(&format!("name-{n}"), HOME, 0).unwrap();
        }
        for _ in 0..10 {
            throttle.attempt("own", HOME, 0).unwrap();
            throttle.succeeded("own", HOME, 0);
        }
        throttle.attempt("own", HOME, 0).unwrap();
        assert!(throttle.attempt("own", HOME, 0).is_err());
    }

    #[test]
    fn an_attempt_that_was_not_made_is_given_back() {
        let throttle = Throttle::default();
        for _ in 0..1_000 {
            throttle.attempt("ada", HOME, 0).unwrap();
            throttle.withdrawn("ada", HOME);
        }
    }

    #[test]
    fn all_is_forgotten_after_a_quarter_of_an_hour() {
        let throttle = Throttle::default();
        for _ in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", HOME, 0).unwrap();
        }
        for _ in 0..FREE_PER_ACCOUNT {
            throttle.attempt("ada", HOME, FORGET_AFTER_MS).unwrap();
        }
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_address_as_itself() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::2:3:4:5".parse().unwrap()));
        assert_ne!(network("2001:db8::1".parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), HOME);
    }
}
