//! JSON Schema (2020-12) of what travels on the bus, as it is read: what an earlier version wrote is valid, too.
//!
//! **Invariant:** a schema follows from the type and its serde attributes. It says less than reading does where two fields must fit together.

use schemars::{
    JsonSchema, Schema,
    generate::SchemaSettings,
    transform::{RemoveRefSiblings, Transform, transform_subschemas},
};
use serde_json::Value;

use crate::{event, planning, protocol, trigger};

/// The schemas, each with the path of its type in this crate, sorted by it.
pub fn all() -> Vec<(&'static str, Value)> {
    macro_rules! schemas {
        ($($type:ty),* $(,)?) => { vec![$((stringify!($type), of::<$type>())),*] };
    }
    schemas![
        event::archive::ArchivedLog,
        event::run::RunEvent,
        event::run::RunRecord,
        planning::PlanReply,
        planning::PlanRequest,
        planning::TriggersReply,
        planning::TriggersRequest,
        protocol::agent::AgentCommand,
        protocol::agent::AgentReport,
        protocol::agent::AgentStatus,
        protocol::agent::Revoked,
        protocol::auction::Announcement,
        protocol::auction::AuctionRequest,
        protocol::auction::Bid,
        protocol::auction::Experience,
        protocol::auction::Proposal,
        protocol::enrolment::DrainReply,
        protocol::enrolment::DrainRequest,
        protocol::enrolment::RenewalRequest,
        protocol::enrolment::RenewalReply,
        protocol::enrolment::RollPage,
        protocol::enrolment::RollRequest,
        protocol::forge::ProjectRunReply,
        protocol::forge::ProjectRunRequest,
        protocol::log::LogHeader,
        protocol::orchestrator::Asked,
        protocol::orchestrator::Told,
        trigger::Trigger,
    ]
}

fn of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    // A reader that knows an earlier draft only, as those of AsyncAPI do, looks at nothing that stands beside a reference.
    settings.transforms.push(Box::new(RemoveRefSiblings::default()));
    settings.transforms.push(Box::new(PlainText));
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// Makes texts of the doc comments: paragraphs on one line each, and names without their links.
#[derive(Debug, Clone)]
struct PlainText;

impl Transform for PlainText {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = plain(text);
        }
        transform_subschemas(self, schema);
    }
}

fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut rest = paragraphs.collect::<Vec<_>>().join("\n\n");
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, after)) = after.split_once("`]") else { break };
        plain.extend([before, "`", name, "`"]);
        let target = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = target.map_or(after, |(_, after)| after).to_owned();
    }
    plain + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_no_links() {
        assert_eq!(plain("Of [`a::B`], the [`C`](d::C)\none.\n\nNext (e)."), "Of `a::B`, the `C` one.\n\nNext (e).");
        assert_eq!(plain("open [`a"), "open [`a");
    }
}
