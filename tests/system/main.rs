//! Stories of the whole system: the processes of the Procfile with real servers, seen from outside, and killed at will.
//!
//! It is a test of the package that has the binary `otto`, so that cargo builds the one for the other.

mod house;
mod witness;

mod delivery;
mod kills;
mod local;
mod writes;
