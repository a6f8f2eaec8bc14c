//! What a turn costs, measured as a user would: the shipped program and what one would use instead, as processes on
//! loopback, by the CPU time of every process involved. Each binary is one measurement.

pub mod asking;
pub mod contents;
pub mod cores;
pub mod generator;
pub mod lists;
pub mod measured;
pub mod page;
pub mod plot;
pub mod program;
pub mod pulse;
pub mod redis_cli;
pub mod results;
pub mod rounds;
pub mod subjects;
pub mod table;
pub mod wire;
