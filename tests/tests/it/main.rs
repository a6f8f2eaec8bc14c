//! Whole programs, and what holds for the whole source. One binary, so that it links once.

mod exactly_once;
mod invariants;
mod peers;
mod responders;
mod store_crash;
