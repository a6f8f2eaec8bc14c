//! Whole programs, and what holds for the whole source. One binary, so that it links once.

mod auth_role;
mod backup;
mod chat;
mod check;
mod cluster;
mod demo;
mod edge;
mod exactly_once;
mod failover;
mod invariants;
mod links;
mod one_writer;
mod peers;
mod responders;
mod store_crash;
mod told;
mod traces;
mod watching;
mod webhooks;
