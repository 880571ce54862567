//! The tables, and what is asked of them.

use std::path::PathBuf;

use apispec::RunView;
use model::ProjectName;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params, params_from_iter, types::Value};
use serde::de::DeserializeOwned;
use service::file::LockFile;

use super::{AuditEntry, AuditFilter, Delivery, DeliveryFilter, DeliveryStatus, RunFilter, ViewError, entry, worker::Taken};

/// The version of the tables and of what stands in them: of another one, all is made again.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE runs (
    run TEXT PRIMARY KEY, first INTEGER NOT NULL UNIQUE, last INTEGER NOT NULL, project TEXT NOT NULL, status TEXT NOT NULL,
    event TEXT NOT NULL, branch TEXT NOT NULL, commit_id TEXT NOT NULL, accepted_at INTEGER NOT NULL, view TEXT NOT NULL
);
CREATE INDEX runs_by_project ON runs (project, first);
CREATE INDEX runs_by_status ON runs (status, first);
CREATE INDEX runs_by_branch ON runs (branch, first);
CREATE TABLE deliveries (
    run TEXT NOT NULL, stage TEXT NOT NULL, place INTEGER NOT NULL UNIQUE, project TEXT NOT NULL, environment TEXT NOT NULL,
    happens INTEGER NOT NULL, view TEXT NOT NULL, PRIMARY KEY (run, stage)
);
CREATE INDEX deliveries_by_environment ON deliveries (project, environment, place);
CREATE TABLE audit (
    place INTEGER PRIMARY KEY, run TEXT NOT NULL, project TEXT NOT NULL, actor TEXT, at INTEGER NOT NULL, view TEXT NOT NULL
);
CREATE INDEX audit_by_run ON audit (run, place);
CREATE INDEX audit_by_actor ON audit (actor, place);
CREATE TABLE whole (is_whole INTEGER NOT NULL);
INSERT INTO whole VALUES (0);
";

/// Where the database lies.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// It ends with the process.
    Memory,
    /// In this file, and others beside it.
    File(PathBuf),
}

#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    /// Held while the database is: two processes do not make one anew at once.
    _lock: Option<LockFile>,
}

impl Place {
    /// Removes what is there. What cannot be removed fails when it is opened.
    pub(super) fn remove(&self) {
        let Self::File(file) = self else { return };
        for suffix in ["", "-wal", "-shm"] {
            let mut name = file.clone().into_os_string();
            name.push(suffix);
            let _it_is_gone = std::fs::remove_file(PathBuf::from(name));
        }
    }

    /// `None` where another process has it, or there is no file for a lock.
    fn lock(&self, waits: bool) -> Option<LockFile> {
        let Self::File(file) = self else { return None };
        let lock = LockFile::open(&file.with_extension("lock")).ok()?;
        let taken = if waits { lock.hold().is_ok() } else { lock.try_hold().is_ok_and(|held| held) };
        taken.then_some(lock)
    }

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        match self {
            Self::Memory => Connection::open_in_memory(),
            Self::File(file) => Connection::open(file),
        }
    }
}

impl Database {
    /// Opens what is there; makes it anew, empty, if it is of another version or none at all.
    pub(super) fn open(place: &Place) -> Result<Self, rusqlite::Error> {
        let lock = place.lock(true);
        Self::open_locked(place, lock)
    }

    /// The same, unless another process has it.
    pub(super) fn open_alone(place: &Place) -> Option<Result<Self, rusqlite::Error>> {
        place.lock(false).map(|lock| Self::open_locked(place, Some(lock)))
    }

    /// Says to the process that has it that it is to be made anew.
    pub(super) fn ask_anew(place: &Place) -> Result<(), rusqlite::Error> {
        place.connect()?.execute("UPDATE whole SET is_whole = 0", []).map(drop)
    }

    fn open_locked(place: &Place, mut lock: Option<LockFile>) -> Result<Self, rusqlite::Error> {
        let found = place.connect().and_then(|connection| Self::set_up(connection, false));
        match found {
            Ok(Some(connection)) => return Ok(Self { connection, _lock: lock.take() }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the lists of runs cannot be used, and are made again"),
        }
        place.remove();
        let made = Self::set_up(place.connect()?, true)?;
        Ok(Self { connection: made.ok_or(rusqlite::Error::InvalidQuery)?, _lock: lock })
    }

    /// `None` where the tables are of another version, and are not to be made.
    fn set_up(connection: Connection, make: bool) -> Result<Option<Connection>, rusqlite::Error> {
        // What is written survives the process at once, and a loss of power but for its end, which is read from the logs again.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == VERSION {
            connection.query_row("SELECT is_whole FROM whole", [], |row| row.get::<_, i64>(0))?;
            return Ok(Some(connection));
        }
        if !make {
            return Ok(None);
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        Ok(Some(connection))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Result<(), ViewError> {
        Ok(self
            .connection
            .execute_batch("BEGIN; DELETE FROM runs; DELETE FROM deliveries; DELETE FROM audit; UPDATE whole SET is_whole = 0; COMMIT;")?)
    }

    pub(super) fn set_whole(&mut self) -> Result<(), ViewError> {
        self.connection.execute("UPDATE whole SET is_whole = 1", [])?;
        Ok(())
    }

    /// Whether all was read once, and nothing is from a log that is behind `end`.
    pub(super) fn is_whole(&mut self, end: u64) -> Result<bool, ViewError> {
        let is_whole: i64 = self.connection.query_row("SELECT is_whole FROM whole", [], |row| row.get(0))?;
        let last: Option<u64> = self.connection.query_row("SELECT max(last) FROM runs", [], |row| row.get(0))?;
        Ok(is_whole == 1 && last.is_none_or(|last| last <= end))
    }

    /// Writes all of it or nothing.
    pub(super) fn write<'taken>(&mut self, all: impl Iterator<Item = &'taken Taken>) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        for taken in all {
            write(&transaction, taken)?;
        }
        transaction.commit()
    }

    pub(super) fn runs(&mut self, filter: &RunFilter, before: Option<u64>, limit: usize) -> Result<Vec<(u64, RunView)>, ViewError> {
        let RunFilter { projects, standing, branch, commit, event, since, until } = filter;
        let mut conditions = Conditions::default();
        if let Some(before) = before {
            conditions.number("first < ?", before);
        }
        conditions.projects(projects.as_deref());
        if let Some(standing) = standing {
            conditions.one_of("status", standing.words());
        }
        if let Some(branch) = branch {
            conditions.text("branch = ?", branch);
        }
        if let Some(commit) = commit {
            // No pattern: a commit is asked for by whoever types it.
            conditions.text("instr(commit_id, ?) = 1", commit);
        }
        if let Some(event) = event {
            conditions.text("event = ?", event.as_str());
        }
        if let Some(since) = since {
            conditions.number("accepted_at >= ?", since.0);
        }
        if let Some(until) = until {
            conditions.number("accepted_at < ?", until.0);
        }
        self.read(&format!("SELECT first, view FROM runs {} ORDER BY first DESC", conditions.text), conditions.values, limit)
    }

    pub(super) fn deliveries(&mut self, filter: &DeliveryFilter, before: Option<u64>, limit: usize) -> Result<Vec<Delivery>, ViewError> {
        let DeliveryFilter { projects, environment, newest_only, happens_only } = filter;
        let mut conditions = Conditions::default();
        if *happens_only {
            conditions.add("happens");
        }
        conditions.projects(projects.as_deref());
        if let Some(before) = before {
            conditions.number("place < ?", before);
        }
        if let Some(environment) = environment {
            conditions.text("environment = ?", environment);
        }
        if *newest_only {
            let newer = "SELECT 1 FROM deliveries newer WHERE newer.project = deliveries.project \
                         AND newer.environment = deliveries.environment AND newer.place > deliveries.place \
                         AND newer.happens >= deliveries.happens";
            conditions.add(&format!("NOT EXISTS ({newer})"));
        }
        Ok(views(self.read(
            &format!("SELECT place, view FROM deliveries {} ORDER BY place DESC", conditions.text),
            conditions.values,
            limit,
        )?))
    }

    pub(super) fn audit(&mut self, filter: &AuditFilter, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, ViewError> {
        let AuditFilter { projects, actor, run, since, until } = filter;
        let mut conditions = Conditions::default();
        conditions.projects(projects.as_deref());
        if let Some(before) = before {
            conditions.number("place < ?", before);
        }
        if let Some(actor) = actor {
            conditions.text("actor = ?", actor);
        }
        if let Some(run) = run {
            conditions.text("run = ?", run.as_str());
        }
        if let Some(since) = since {
            conditions.number("at >= ?", since.0);
        }
        if let Some(until) = until {
            conditions.number("at < ?", until.0);
        }
        Ok(views(self.read(&format!("SELECT place, view FROM audit {} ORDER BY place DESC", conditions.text), conditions.values, limit)?))
    }

    /// The places and the views of a query's rows.
    fn read<T: DeserializeOwned>(&self, query: &str, mut values: Vec<Value>, limit: usize) -> Result<Vec<(u64, T)>, ViewError> {
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let mut statement = self.connection.prepare_cached(&format!("{query} LIMIT ?"))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let view = row.get_ref(1)?.as_str().map_err(|_| rusqlite::Error::InvalidQuery)?;
            found.push((row.get(0)?, serde_json::from_str(view)?));
        }
        Ok(found)
    }
}

fn views<T>(placed: Vec<(u64, T)>) -> Vec<T> {
    placed.into_iter().map(|(_, view)| view).collect()
}

/// What a row must fit.
#[derive(Default)]
struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, condition: &str) {
        self.text += if self.text.is_empty() { "WHERE " } else { " AND " };
        self.text += condition;
    }

    fn text(&mut self, condition: &str, value: &str) {
        self.add(condition);
        self.values.push(Value::Text(value.to_owned()));
    }

    fn number(&mut self, condition: &str, value: u64) {
        self.add(condition);
        self.values.push(Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn one_of<'value>(&mut self, column: &str, values: impl IntoIterator<Item = &'value str>) {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(|value| Value::Text(value.to_owned())));
        let places = vec!["?"; self.values.len() - before].join(", ");
        self.add(&format!("{column} IN ({places})"));
    }

    fn projects(&mut self, projects: Option<&[ProjectName]>) {
        if let Some(projects) = projects {
            self.one_of("project", projects.iter().map(ProjectName::as_str));
        }
    }
}

fn write(transaction: &Transaction<'_>, taken: &Taken) -> Result<(), rusqlite::Error> {
    let (run, last) = (&taken.run, taken.last());
    let known: Option<(u64, String)> = transaction
        .prepare_cached("SELECT last, status FROM runs WHERE run = ?1")?
        .query_row([run.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let first = match taken.records.first() {
        Some(first) if first.record.previous.is_none() => Some(first.sequence),
        _ => None,
    };
    if known.is_none() && first.is_none() {
        // Its beginning is not here: the logs are read anew.
        return Ok(());
    }
    let (known_last, was_damaged) = known.map_or((0, false), |(last, status)| (last, status == "damaged"));
    if known_last >= last && first.is_some() && was_damaged == taken.damaged && known_last > 0 {
        return Ok(());
    }
    let (status, view) = taken.row();
    let row = params![
        run.id.as_str(),
        first.unwrap_or_default(),
        last.max(known_last),
        run.trigger.project.as_str(),
        status,
        run.trigger.context.event.as_str(),
        run.trigger.context.branch,
        run.trigger.context.commit,
        run.accepted_at.0,
        json(&view)
    ];
    transaction
        .prepare_cached(
            "INSERT INTO runs (run, first, last, project, status, event, branch, commit_id, accepted_at, view)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (run) DO UPDATE SET last = excluded.last, status = excluded.status, view = excluded.view",
        )?
        .execute(row)?;
    for appended in &taken.records {
        for entry in entry::audit(run, appended) {
            let row = params![entry.place, entry.run.as_str(), entry.project.as_str(), entry.actor, entry.at.0, json(&entry)];
            transaction
                .prepare_cached("INSERT OR IGNORE INTO audit (place, run, project, actor, at, view) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(row)?;
        }
        for (at, place, happens) in entry::delivering(run, appended) {
            deliver(transaction, run, at, place, happens)?;
        }
    }
    Ok(())
}

/// Writes how a delivery stands now; one that never was to happen is none.
fn deliver(transaction: &Transaction<'_>, run: &crate::core::Run, at: usize, place: u64, happens: bool) -> Result<(), rusqlite::Error> {
    let stage = &run.shape.stage(at).id;
    let known: Option<u64> = transaction
        .prepare_cached("SELECT place FROM deliveries WHERE run = ?1 AND stage = ?2")?
        .query_row([run.id.as_str(), stage.as_str()], |row| row.get(0))
        .optional()?;
    if known.is_none() && !happens {
        return Ok(());
    }
    let Some(delivery) = entry::delivery(run, at, known.unwrap_or(place)) else { return Ok(()) };
    let happens = delivery.status != DeliveryStatus::Skipped;
    let row =
        params![run.id.as_str(), stage.as_str(), delivery.place, delivery.project.as_str(), delivery.environment, happens, json(&delivery)];
    transaction
        .prepare_cached(
            "INSERT INTO deliveries (run, stage, place, project, environment, happens, view) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (run, stage) DO UPDATE SET happens = excluded.happens, view = excluded.view",
        )?
        .execute(row)?;
    Ok(())
}

fn json(row: &impl serde::Serialize) -> String {
    serde_json::to_string(row).expect("a row has text keys only")
}
