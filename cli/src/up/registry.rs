//! `processes.json`: the process id of each process that runs now, by name, and of `otto up` itself as `up`. For operators and tests.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// The file. Clones write the same one.
#[derive(Debug, Clone)]
pub(super) struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    processes: Mutex<BTreeMap<String, u32>>,
}

impl Registry {
    pub(super) fn create(data: &Path) -> io::Result<Self> {
        let registry = Self(Arc::new(Inner { path: data.join("processes.json"), processes: Mutex::default() }));
        registry.set("up", Some(std::process::id()))?;
        Ok(registry)
    }

    /// Says that a process runs, or that it does not.
    pub(super) fn set(&self, name: &str, pid: Option<u32>) -> io::Result<()> {
        let mut processes = self.0.processes.lock().expect("no holder of this lock panics");
        match pid {
            Some(pid) => processes.insert(name.to_owned(), pid),
            None => processes.remove(name),
        };
        // Whoever reads it finds all of it, also while it is written.
        let aside = self.0.path.with_extension("json.new");
        let text = serde_json::to_string_pretty(&*processes).expect("names and numbers have a JSON form");
        fs::write(&aside, text)?;
        fs::rename(&aside, &self.0.path)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.0.path)
    }
}
