//! Who asks.

use std::collections::BTreeSet;

use model::{ProjectName, TokenName, access::Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::schema;

/// The token that a request was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Who it was made for; stands in the records as who did something.
    #[schema(value_type = schema::TokenName)]
    pub name: TokenName,
    /// What it is for.
    #[schema(value_type = schema::Role)]
    pub role: Role,
    /// The projects that it is for; `null` for all.
    #[schema(value_type = Option<Vec<schema::ProjectName>>)]
    pub projects: Option<BTreeSet<ProjectName>>,
}
