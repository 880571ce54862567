//! The forge with real git, over real HTTP, on the memory bus.

#[cfg(test)]
mod asked;
#[cfg(test)]
mod cron;
#[cfg(test)]
mod http_git;
#[cfg(test)]
mod libraries;
#[cfg(test)]
mod pushes;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod remotes;
#[cfg(test)]
mod served;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod statuses;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod world;
