//! What each route asks of its caller: the one table.
//!
//! **Invariant:** a route that is not here is served to nobody who would have to show a token: its handler finds no caller.

use model::access::Role;

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing.
    Open,
    /// A token of this role, or of a later one.
    Of(Role),
}

/// Every route, by its method and its path.
pub(super) const RIGHTS: &[(&str, &str, Right)] = &[
    ("GET", "/health", Right::Open),
    ("GET", "/metrics", Right::Open),
    ("GET", "/v1/openapi.json", Right::Open),
    ("POST", "/v1/callbacks/{secret}", Right::Open),
    ("GET", "/v1/token", Right::Of(Role::View)),
    ("GET", "/v1/runs", Right::Of(Role::View)),
    ("POST", "/v1/runs", Right::Of(Role::Run)),
    ("GET", "/v1/runs/{run}", Right::Of(Role::View)),
    ("POST", "/v1/runs/{run}/cancel", Right::Of(Role::Run)),
    ("POST", "/v1/runs/{run}/rerun", Right::Of(Role::Run)),
    ("POST", "/v1/runs/{run}/answer", Right::Of(Role::Approve)),
    ("GET", "/v1/runs/{run}/events", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/events/follow", Right::Of(Role::View)),
    ("GET", "/v1/events/follow", Right::Of(Role::View)),
    ("POST", "/v1/sources", Right::Of(Role::Run)),
    ("GET", "/v1/runs/{run}/log", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/log/follow", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/output", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/artifacts", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/artifact", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/why", Right::Of(Role::View)),
    ("GET", "/v1/runs/{run}/plan", Right::Of(Role::View)),
    ("POST", "/v1/plans", Right::Of(Role::View)),
    ("GET", "/v1/agents", Right::Of(Role::View)),
    ("POST", "/v1/agents/{agent}/drain", Right::Of(Role::Admin)),
    ("GET", "/v1/audit", Right::Of(Role::View)),
    ("GET", "/v1/auctions", Right::Of(Role::View)),
    ("GET", "/v1/projects", Right::Of(Role::View)),
    ("GET", "/v1/projects/{project}", Right::Of(Role::View)),
    ("POST", "/v1/projects/{project}/runs", Right::Of(Role::Run)),
    ("GET", "/v1/environments", Right::Of(Role::View)),
    ("GET", "/v1/environments/{name}", Right::Of(Role::View)),
    ("GET", "/v1/waits", Right::Of(Role::View)),
];

/// What a route asks, if there is such a route.
pub(super) fn right(method: &str, path: &str) -> Option<Right> {
    RIGHTS.iter().find(|(of, at, _)| *of == method && *at == path).map(|(_, _, right)| *right)
}
