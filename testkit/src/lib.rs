//! What tests need: a real nats-server of their own, and waiting without sleeping. A dev-dependency, never part of the product.

mod nats_cluster;
mod nats_server;
mod random;
mod wait;

pub use self::{
    nats_cluster::NatsCluster,
    nats_server::{NatsServer, aged_user, otto_home},
    random::Random,
    wait::{TEST_DEADLINE, wait_for},
};
