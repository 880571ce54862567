//! The orchestrator from outside.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod cancels;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod house;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod odd;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod planning;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod protection;
#[cfg(test)]
mod putaway;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod reruns;
#[cfg(test)]
mod revoked;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod views;
#[cfg(test)]
mod waits;
