//! `cache { … }`: what a stage keeps for others, and what it takes of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    diagnostic::Span,
    plan::{self, CacheDefinition},
};

use super::{Cache, From, Lowering, read::Keys};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::CACHE_PATHS_MAX,
    syntax::{Call, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

const DEFINITION: Keys = Keys { within: "in a cache", names: &["paths", "key"] };
const FORM: &str = "write `cache { gems = ['vendor/'] }` to make one, `cache { use gems }` to take one";

impl Lowering<'_, '_> {
    /// `cache { … }`, with what is copied into it.
    pub(super) fn cache(&mut self, entry: &Entry, from: &mut Vec<From>) -> Option<Cache> {
        let block = self.block(entry)?;
        let mut cache = Cache::default();
        self.with_copies("cache", block, from, |lowering, layer| lowering.cache_items(layer.items, &mut cache));
        let (of_itself, used): (Vec<Name>, Vec<Name>) = cache.used.into_iter().partition(|name| cache.defined.contains_key(&name.kind));
        for name in of_itself {
            let message = format!("one stage makes the cache {} and takes it", quoted(&name.kind));
            let help = "a cache is made by one stage and used by others; what one stage makes, it has";
            self.error(Finding::new(Code::CacheOfItself, name.span, message).help(help));
        }
        cache.used = used;
        Some(cache)
    }

    fn cache_items(&mut self, items: &[Item], cache: &mut Cache) {
        let (used, defined): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| is_use(item));
        let copied: BTreeSet<String> = cache.used.iter().map(|used| used.kind.clone()).collect();
        let mut own: BTreeMap<String, Span> = BTreeMap::new();
        for item in used {
            let ItemKind::Entry(entry) = &item.kind else { continue };
            for name in self.used_caches(entry) {
                if let Some(first) = own.insert(name.kind.clone(), name.span) {
                    self.doubled(&format!("`use {}`", name.kind), name.span, first);
                } else if !copied.contains(&name.kind) {
                    cache.used.push(name);
                }
            }
        }
        let defined: Vec<Item> = defined.into_iter().cloned().collect();
        for entry in self.entries(&defined, "in `cache`") {
            if self.is_cache_name(&entry.name) {
                // A wrong one is there nevertheless: its uses are not wrong because of it.
                let nothing = || CacheDefinition { paths: Vec::new(), key: None };
                let definition = self.cache_definition(entry).unwrap_or_else(nothing);
                cache.defined.insert(entry.name.kind.clone(), definition);
            }
        }
    }

    /// `use gems`, `use 'gems'`.
    fn used_caches(&mut self, entry: &Entry) -> Vec<Name> {
        let mut names = Vec::new();
        let arguments = match &entry.tail {
            Tail::Call(Call { arguments, block: None }) if !arguments.is_empty() => arguments.as_slice(),
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                self.error(Finding::new(Code::Shape, entry.name.span, "`use` takes the name of a cache").help(FORM));
                return names;
            }
        };
        for argument in arguments {
            let (ValueKind::Name(name) | ValueKind::Text(name)) = &argument.value.kind else {
                self.wrong_value::<()>(&argument.value, "this is no name of a cache", FORM);
                continue;
            };
            let name = Name { kind: name.clone(), span: argument.value.span };
            if self.is_cache_name(&name) {
                names.push(name);
            }
        }
        names
    }

    fn is_cache_name(&mut self, name: &Name) -> bool {
        let sound = !name.kind.is_empty() && name.kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !sound {
            let finding = Finding::new(Code::SettingValue, name.span, format!("{} cannot be the name of a cache", quoted(&name.kind)));
            self.error(finding.help("use letters, digits, `_` and `-`"));
        }
        sound
    }

    /// `['vendor/']`, or `{ paths = ['target/'] key = files('Cargo.lock') }`.
    fn cache_definition(&mut self, entry: &Entry) -> Option<CacheDefinition> {
        let Some(block) = Self::block_of(entry) else {
            let value = self.value_of(entry)?;
            return self.cache_paths(value).map(|paths| CacheDefinition { paths, key: None });
        };
        let keys = self.keyed(&block.kind, &DEFINITION);
        let Some(paths) = keys.get("paths") else {
            self.missing_key(&entry.name, block, &DEFINITION, "paths", "write `{ paths = ['target/'] key = files('Cargo.lock') }`");
            return None;
        };
        let paths = self.value_of(paths).and_then(|value| self.cache_paths(value));
        let key = match keys.get("key") {
            Some(key) => {
                let value = self.value_of(key)?;
                Some(self.line_or_variable(value, "the key of a cache")?)
            }
            None => None,
        };
        paths.map(|paths| CacheDefinition { paths, key })
    }

    fn cache_paths(&mut self, value: &Value) -> Option<Vec<plan::Value>> {
        const HELP: &str = "paths are relative to the work directory and stay in it: `['vendor/', 'target/']`";
        let known = self.known(value)?.value;
        let paths = match known {
            plan::Value::List(paths) => paths,
            path @ (plan::Value::Boolean(_)
            | plan::Value::Integer(_)
            | plan::Value::Text(_)
            | plan::Value::Decimal { .. }
            | plan::Value::Variable { .. }
            | plan::Value::Call { .. }
            | plan::Value::Steps { .. }) => vec![path],
        };
        if paths.is_empty() {
            return self.wrong_value(value, "a cache of nothing", HELP);
        }
        if paths.len() > CACHE_PATHS_MAX {
            return self.wrong_value(value, format!("a cache has at most {CACHE_PATHS_MAX} paths"), "name a folder that holds them");
        }
        let mut sound = true;
        for (place, path) in paths.iter().enumerate() {
            let problem = match path {
                plan::Value::Text(path) => path_problem(path),
                plan::Value::Variable { .. } | plan::Value::Call { .. } => None,
                plan::Value::Boolean(_)
                | plan::Value::Integer(_)
                | plan::Value::Decimal { .. }
                | plan::Value::Steps { .. }
                | plan::Value::List(_) => Some("is no text"),
            };
            if let Some(problem) = problem {
                sound = false;
                let shown = path.as_text().map_or_else(|| "this".to_owned(), quoted);
                let finding = Finding::new(Code::SettingValue, item_span(value, place), format!("{shown} {problem}"));
                self.error(finding.label("not a path of the work directory").help(HELP));
            }
        }
        sound.then_some(paths)
    }
}

fn is_use(item: &Item) -> bool {
    matches!(&item.kind, ItemKind::Entry(Entry { name, tail: Tail::Call(_) }) if name.kind == "use")
}

fn item_span(list: &Value, place: usize) -> Span {
    if let ValueKind::List(items) = &list.kind { items.get(place).map_or(list.span, |item| item.span) } else { list.span }
}

/// Why a path leads out of the work directory, or is none.
fn path_problem(path: &str) -> Option<&'static str> {
    if path.trim().is_empty() {
        Some("is empty")
    } else if path.starts_with('/') || path.starts_with('~') {
        Some("does not begin at the work directory")
    } else if path.split('/').any(|part| part == "..") {
        Some("leads out of a folder with `..`")
    } else if path.contains('\\') {
        Some("has `\\`: folders are parted by `/`")
    } else if path.chars().any(char::is_control) {
        Some("has a control character")
    } else {
        None
    }
}
