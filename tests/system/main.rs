//! Stories of the whole system: the processes of the Procfile with real servers, seen from outside, and killed at will.
//!
//! It is a test of the package that has the binary `otto`, so that cargo builds the one for the other.

#[cfg(test)]
mod house;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod witness;

#[cfg(test)]
mod alike;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod following;
#[cfg(test)]
mod full_bus;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod large;
#[cfg(test)]
mod left;
#[cfg(test)]
mod local;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod makers;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod random_kills;
#[cfg(test)]
mod remote;
mod settings;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod successors;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod thousand;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod writes;
