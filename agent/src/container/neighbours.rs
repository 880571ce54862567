//! The services of steps that run on this machine and in no image: containers that share one network, whose address this machine reaches.

use std::{fmt::Write as _, net::IpAddr, path::Path, sync::Arc};

use model::plan::Service;

use super::{
    CLIENT_DEADLINE, Runtime, leftovers,
    place::{PlaceError, fetch, names},
    services,
};

/// How the client says the addresses of a container: one for each network that it is in.
const ADDRESSES: &str = "--format={{.NetworkSettings.IPAddress}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
/// The machine's own table of names (`man 5 hosts`).
const HOSTS: &str = "/etc/hosts";

/// The services of an attempt without an image.
#[derive(Debug)]
pub(crate) struct Neighbours {
    runtime: Arc<Runtime>,
    names: Vec<String>,
}

impl Neighbours {
    /// Starts them, one after the other, each when the one before is ready, and writes a table of names for the steps to `hosts`.
    pub(crate) async fn start(runtime: &Arc<Runtime>, services: &[Service], mark: &str, hosts: &Path) -> Result<Self, PlaceError> {
        for service in services {
            fetch(runtime, service.image.as_text().unwrap_or_default()).await?;
        }
        let neighbours = Self { runtime: runtime.clone(), names: names(mark, services.len()).split_off(1) };
        let started = neighbours.begin(services, mark, hosts).await;
        if let Err(error) = started {
            neighbours.end().await;
            return Err(error);
        }
        Ok(neighbours)
    }

    async fn begin(&self, services: &[Service], mark: &str, hosts: &Path) -> Result<(), PlaceError> {
        let Some(first) = self.names.first() else { return Ok(()) };
        for (service, name) in services.iter().zip(&self.names) {
            let network = if name == first { services::Network::Own(services) } else { services::Network::Of(first) };
            services::start(&self.runtime, service, name, network, mark).await?;
        }
        let said = self.runtime.ask("inspect", &[ADDRESSES, first], CLIENT_DEADLINE).await?;
        let address = said.split_whitespace().find_map(|word| word.parse::<IpAddr>().ok()).ok_or(PlaceError::Unreachable)?;
        let table = tokio::fs::read_to_string(HOSTS).await.unwrap_or_default();
        tokio::fs::write(hosts, with_names(&table, address, services)).await.map_err(PlaceError::Disk)
    }

    /// Ends them, and with them every process in them.
    pub(crate) async fn end(self) {
        let names: Vec<&str> = self.names.iter().rev().map(String::as_str).collect();
        leftovers::remove_all(&self.runtime, &names).await;
    }
}

/// The table with the names of services before all others, as the first line of a name counts.
fn with_names(table: &str, address: IpAddr, services: &[Service]) -> String {
    let mut text = String::new();
    for service in services {
        writeln!(text, "{address} {}", service.name).expect("a text takes everything");
    }
    text + table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_goes_before_what_the_machine_calls_so() {
        let services = ["db", "cache"].map(|name| Service {
            name: name.to_owned(),
            image: "x".into(),
            environment: std::collections::BTreeMap::new(),
            port: None,
            ready: None,
        });
        let table = with_names("127.0.0.1 localhost\n10.0.0.1 db\n", "10.88.0.2".parse().unwrap(), &services);
        assert_eq!(table, "10.88.0.2 db\n10.88.0.2 cache\n127.0.0.1 localhost\n10.0.0.1 db\n");
    }
}
