//! What tests need: a real nats-server of their own, a real proxy, and waiting without sleeping. A dev-dependency, never part of the product.

mod groups;
mod http;
mod nats_cluster;
mod nats_server;
mod proxy;
mod random;
mod wait;

pub use self::{
    groups::stage_groups,
    http::{http_client, http_get},
    nats_cluster::NatsCluster,
    nats_server::{NatsServer, aged_user, otto_home},
    proxy::{Proxy, ReservedProxy},
    random::Random,
    wait::{TEST_DEADLINE, wait_for},
};
