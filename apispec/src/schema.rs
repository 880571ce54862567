//! Schemas of the values of `model` that stand in requests and views. `model` knows nothing of OpenAPI, so they are written down here.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type},
    },
};

/// The kinds of a run's events, as [`model::event::run::RunEvent::kind`] names them.
pub const EVENT_KINDS: [&str; 21] = [
    "run_accepted",
    "stage_ready",
    "stage_awarded",
    "stage_declined",
    "stage_started",
    "stage_finished",
    "stage_retried",
    "stage_ended",
    "stage_reused",
    "wait_opened",
    "wait_answered",
    "lock_queued",
    "lock_acquired",
    "stage_lost",
    "stage_skipped",
    "stage_log_stored",
    "stage_cancel_requested",
    "run_held",
    "run_released",
    "cancel_requested",
    "run_finished",
];

/// A schema under a name of its own.
macro_rules! schema {
    ($name:ident, $description:literal, |$builder:ident| $build:expr) => {
        #[doc = concat!("Schema: ", $description)]
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let $builder = ObjectBuilder::new().description(Some($description));
                $build.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

fn text(builder: ObjectBuilder, pattern: &str) -> ObjectBuilder {
    builder.schema_type(Type::String).pattern(Some(pattern))
}

fn choice(builder: ObjectBuilder, values: &[&str]) -> ObjectBuilder {
    builder.schema_type(Type::String).enum_values(Some(values.iter().copied()))
}

/// A server-sent event (WHATWG HTML, section 9.2), by its fields.
fn message(builder: ObjectBuilder, names: &[&str]) -> ObjectBuilder {
    builder
        .schema_type(Type::Object)
        .property("event", choice(ObjectBuilder::new().description(Some("its name")), names))
        .property("id", ObjectBuilder::new().schema_type(Type::String).description(Some("its id, for `Last-Event-ID`; not all have one")))
        .property("data", ObjectBuilder::new().schema_type(Type::String).description(Some("what it says, as JSON")))
        .required("event")
        .required("data")
}

schema!(RunId, "the id of a run, derived from its trigger", |builder| text(builder, "^run_[0-9a-v]{24}$"));
schema!(Cursor, "where a list goes on: the `cursor` of the answer before, as it is", |builder| text(builder, "^[0-9]{1,18}$"));
schema!(EventId, "the id of an event in its stream, `<sequence>.<index>`; empty for none", |builder| text(
    builder,
    "^([0-9]{1,18}[.][0-9]{1,9})?$"
));
schema!(IdempotencyKey, "visible characters of ASCII", |builder| text(builder, "^[!-~]{1,255}$"));
schema!(
    OutputRange,
    "`bytes=3-6` from 0, `lines=2-3` from 1, both with the first and the last that is wanted, of which the last may be left out; or `tail=10`, so many lines at the end",
    |builder| text(builder, "^(bytes=[0-9]{1,18}-([0-9]{1,18})?|lines=[1-9][0-9]{0,17}-([1-9][0-9]{0,17})?|tail=[0-9]{1,18})$")
);
schema!(StageId, "the id of a stage, derived from its path in the pipeline", |builder| text(builder, "^stg_[0-9a-v]{24}$"));
schema!(AuctionId, "the id of an auction", |builder| text(builder, "^auc_[0-9a-v]{24}$"));
schema!(Digest, "the SHA-256 of bytes that lie in the depot", |builder| text(builder, "^sha256:[0-9a-f]{64}$"));
schema!(ProjectName, "the name of a project", |builder| text(builder, "^[a-z0-9][a-z0-9_-]{0,63}$"));
schema!(TokenName, "the name of a token", |builder| text(builder, "^[a-z0-9][a-z0-9_-]{0,63}$"));
schema!(Role, "what a token is for; each may do all that those before it may", |builder| choice(
    builder,
    &["view", "run", "approve", "admin"]
));
schema!(AgentName, "the name of an agent", |builder| text(builder, "^[a-z0-9][a-z0-9_-]{0,63}$"));
schema!(AgentClass, "the name of a class of agents", |builder| text(builder, "^[a-z0-9][a-z0-9_-]{0,63}$"));
schema!(Bytes, "any bytes, in base64 with padding (RFC 4648, section 4)", |builder| builder
    .schema_type(Type::String)
    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Byte))));
schema!(Timestamp, "milliseconds since 1970-01-01T00:00:00Z, without leap seconds", |builder| builder
    .schema_type(Type::Integer)
    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
    .minimum(Some(0)));
schema!(TriggerKind, "what made the run start", |builder| choice(
    builder,
    &["push", "tag", "pull_request", "merge_queue", "cron", "manual"]
));
schema!(Effect, "whether the stage may start a second time without a person", |builder| choice(builder, &["safe", "once"]));
schema!(StageOutcome, "how an attempt, and with its last attempt the stage, ended", |builder| choice(
    builder,
    &["success", "unstable", "failure", "aborted"]
));
schema!(RunOutcome, "how the run ended: the worst of its stages", |builder| choice(
    builder,
    &["skipped", "success", "unstable", "failure", "aborted", "unknown"]
));
schema!(
    EventMessage,
    "a server-sent event of a run's events: `event` with an `EventView` as data, at last `end` with an `EndView`",
    |builder| message(builder, &["event", "end"])
);
schema!(
    AnyEventMessage,
    "a server-sent event of all runs' events: first `here`, whose id is where it begins, then `event` with a `RunEventView` as data",
    |builder| message(builder, &["here", "event"])
);
schema!(AnyBytes, "bytes, as they are", |builder| builder.schema_type(SchemaType::AnyValue));
schema!(
    LogMessage,
    "a server-sent event of a run's output: `chunk` with a `ChunkView` as data, `gap` with a `GapView`, at last `end` with an `EndView`",
    |builder| message(builder, &["chunk", "gap", "end"])
);
schema!(Stream, "standard output, standard error, or Otto itself", |builder| choice(builder, &["out", "err", "otto"]));
schema!(RunEvent, "an event as it stands in the run's log; what else it carries depends on its kind", |builder| builder
    .schema_type(Type::Object)
    .property("kind", choice(ObjectBuilder::new().description(Some("what happened")), &EVENT_KINDS))
    .required("kind"));
schema!(Diagnostic, "what is wrong with the pipeline file, where, and how to mend it", |builder| {
    let span = ["start", "end"].iter().fold(ObjectBuilder::new().schema_type(Type::Object), |span, name| {
        span.property(*name, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0))).required(*name)
    });
    let texts = ["code", "message", "file", "label", "help"];
    let with_texts = texts.iter().fold(builder.schema_type(Type::Object), |object, name| {
        object.property(*name, ObjectBuilder::new().schema_type(Type::String)).required(*name)
    });
    let with_numbers = ["line", "column"].iter().fold(with_texts, |object, name| {
        object.property(*name, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1))).required(*name)
    });
    with_numbers
        .property("severity", choice(ObjectBuilder::new(), &["error", "warning"]))
        .required("severity")
        .property("span", span.description(Some("bytes from the beginning of the file, the end not included")))
        .required("span")
});

#[cfg(test)]
mod tests {
    use model::{RunId as Run, StageId as Stage, TriggerId};
    use serde_json::{Value, json};

    use super::*;

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    /// The values of a schema's choice, which are all that the type in `model` has.
    fn check_choice<T: PartialSchema>(values: &[impl serde::Serialize]) {
        assert_eq!(schema::<T>()["enum"], json!(values));
    }

    #[test]
    fn the_choices_are_those_of_the_model() {
        use model::{RunOutcome as R, StageOutcome as S, context::EventKind as K, plan::Effect as E, protocol::log::Stream as L};
        check_choice::<StageOutcome>(&[S::Success, S::Unstable, S::Failure, S::Aborted]);
        check_choice::<RunOutcome>(&[R::Skipped, R::Success, R::Unstable, R::Failure, R::Aborted, R::Unknown]);
        check_choice::<TriggerKind>(&K::ALL);
        check_choice::<Role>(&model::access::Role::ALL);
        check_choice::<Effect>(&[E::Safe, E::Once]);
        check_choice::<Stream>(&[L::Out, L::Err, L::Otto]);
    }

    #[test]
    fn an_id_has_the_prefix_and_the_length_of_its_pattern() {
        let run = Run::of(&TriggerId::of("t", "1"));
        for (id, pattern) in [(run.as_str(), schema::<RunId>()), (Stage::of("Build").as_str(), schema::<StageId>())] {
            let pattern = pattern["pattern"].as_str().unwrap();
            let (prefix, rest) = id.split_once('_').unwrap();
            assert_eq!((pattern, rest.len()), (format!("^{prefix}_[0-9a-v]{{24}}$").as_str(), 24), "{id}");
        }
    }

    #[test]
    fn a_diagnostic_has_the_fields_of_its_schema() {
        let diagnostic = model::diagnostic::Diagnostic {
            code: "E0101".into(),
            severity: model::diagnostic::Severity::Error,
            message: String::new(),
            file: String::new(),
            line: 1,
            column: 1,
            span: model::diagnostic::Span::default(),
            label: String::new(),
            help: String::new(),
        };
        let written = serde_json::to_value(diagnostic).unwrap();
        let mut required: Vec<String> =
            schema::<Diagnostic>()["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let mut fields: Vec<String> = written.as_object().unwrap().keys().cloned().collect();
        required.sort();
        fields.sort();
        assert_eq!(required, fields);
    }
}
