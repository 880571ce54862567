//! What a step's program finds in its invocation file.

use std::{collections::BTreeMap, path::Path};

use model::{
    Digest,
    manifest::StepManifest,
    plan::{Step, Value},
    protocol::{
        agent::Assignment,
        step::{Endpoints, Invocation, InvocationConfiguration},
    },
};
use serde_json::Value as Json;
use subtle::ConstantTimeEq as _;

use super::{CallError, routes::RESOURCES};

/// Bytes of a secret: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;

/// What a call proves itself by.
pub(super) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A new one.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex(&bytes)))
    }

    /// Whether this is it. Takes the same time whatever is wrong.
    pub(super) fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }
}

/// Where a call's things are.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) uuid: String,
    pub(super) cache: Option<&'a Path>,
    pub(super) socket: &'a Path,
    pub(super) secret: &'a Secret,
}

/// A random UUID (RFC 9562, section 5.4).
pub(super) fn uuid() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    Ok(parts.map(hex).join("-"))
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The folder that is kept for a step between its calls. Projects do not share one, nor do scopes: what a pull request leaves, or a run that
/// somebody asked for, is found by no branch.
pub(in crate::executor) fn cache_folder(assignment: &Assignment, step: &Step) -> String {
    let [kind, name] = &assignment.scope.parts();
    let parts = [&assignment.project, kind, name, &step.library, &step.symbol];
    let mut digest = Digest::builder();
    for part in parts {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finish().hex()
}

/// The whole file.
pub(super) fn invocation(
    step: &Step,
    manifest: Option<&StepManifest>,
    assignment: &Assignment,
    place: Place<'_>,
) -> Result<Invocation, CallError> {
    let mut parameters = texts(&step.parameters)?;
    for parameter in manifest.iter().flat_map(|manifest| &manifest.parameters) {
        if let (Some(default), false) = (&parameter.default, parameters.contains_key(&parameter.name)) {
            parameters.insert(parameter.name.clone(), json(&parameter.name, default)?);
        }
    }
    let mut declared = match assignment.configuration.get(&step.symbol) {
        Some(configuration) => texts(configuration)?,
        None => BTreeMap::new(),
    };
    for (name, key) in manifest.iter().flat_map(|manifest| &manifest.configuration) {
        if let (Some(default), false) = (&key.default, declared.contains_key(name)) {
            declared.insert(name.clone(), json(name, default)?);
        }
    }
    // What Otto says stands in the same object, and goes before.
    declared.retain(|name, _| !["pipeline", "uuid", "cache", "ipc", "endpoints"].contains(&name.as_str()));
    let configuration = InvocationConfiguration {
        pipeline: assignment.lease.attempt.run.to_string(),
        uuid: place.uuid,
        cache: place.cache.map(|path| path.to_string_lossy().into_owned()),
        ipc: place.socket.to_string_lossy().into_owned(),
        endpoints: Endpoints {
            secret: place.secret.0.clone(),
            paths: RESOURCES.iter().map(|name| ((*name).to_owned(), format!("/v1/{name}"))).collect(),
        },
        declared,
    };
    Ok(Invocation { configuration, parameters })
}

fn texts(values: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Json>, CallError> {
    values.iter().map(|(name, value)| Ok((name.clone(), json(name, value)?))).collect()
}

fn json(name: &str, value: &Value) -> Result<Json, CallError> {
    let refused = |what| CallError::Argument { name: name.to_owned(), what };
    Ok(match value {
        Value::Boolean(truth) => Json::Bool(*truth),
        Value::Integer(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::Decimal { decimal } => Json::String(decimal.clone()),
        Value::List(items) => Json::Array(items.iter().map(|item| json(name, item)).collect::<Result<_, _>>()?),
        Value::Variable { .. } | Value::Call { .. } => return Err(refused("not known yet, although the stage was sent")),
        Value::Steps { .. } => return Err(refused("a block of steps")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_are_alike() {
        let (one, two) = (uuid().unwrap(), uuid().unwrap());
        assert!(one != two && one.len() == 36 && one.split('-').nth(2).unwrap().starts_with('4'), "{one}");
        let (one, two) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert!(one.is(one.0.as_bytes()) && !one.is(two.0.as_bytes()) && !one.is(b""));
        assert_eq!(format!("{one:?}"), "Secret");
    }

    #[test]
    fn values_keep_their_types_and_digits() {
        let list = Value::List(vec![Value::Integer(1), Value::from("a"), Value::Boolean(true)]);
        assert_eq!(json("x", &list).unwrap().to_string(), r#"[1,"a",true]"#);
        assert_eq!(json("x", &Value::Decimal { decimal: "3.10".to_owned() }).unwrap(), "3.10");
        let error = json("x", &Value::Steps { steps: vec![] }).unwrap_err().to_string();
        assert_eq!(error, "cannot tell the step its argument `x`: it is a block of steps");
    }
}
