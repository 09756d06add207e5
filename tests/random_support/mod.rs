//! A server that has everything, how it is made, and what is done to it: all drawn from a seed.

pub mod script;
pub mod server;
