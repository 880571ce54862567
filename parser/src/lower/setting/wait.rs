//! What is waited for while no agent is held: a person's word, a call from outside, an address.

use model::plan::{self, Wait};

use super::{Lowering, read::Keys};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::{POLL_EVERY_MS_DEFAULT, POLL_EVERY_MS_MIN, POLL_STATUS_DEFAULT, POLL_TIMEOUT_MS_DEFAULT, WAIT_MS_MIN},
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Name, Tail, Value},
};

const ASKED: Keys = Keys { within: "here", names: &["by", "timeout"] };
const WEBHOOK: Keys = Keys { within: "in `webhook`", names: &["description", "timeout"] };
const POLL: Keys = Keys { within: "in `poll`", names: &["url", "status", "every", "timeout"] };
const POLL_FORM: &str = "write `poll { url = 'https://example.org/health' status = 200 every = 10s timeout = 10m }`";

impl Lowering<'_, '_> {
    /// `input 'Ship it?' { by = ['ops'] timeout = 2d }`.
    pub(in crate::lower) fn input(&mut self, entry: &Entry) -> Option<Wait> {
        let Tail::Call(Call { arguments, block }) = &entry.tail else { return self.no_question(&entry.name) };
        let [argument] = arguments.as_slice() else { return self.no_question(&entry.name) };
        if let Some(keyword) = argument.keyword.as_ref().filter(|keyword| !matches!(keyword.kind.as_str(), "msg" | "message")) {
            let message = format!("{} takes no {}", quoted(&entry.name.kind), quoted(&keyword.kind));
            self.error(Finding::new(Code::UnknownKeyword, keyword.span, message).help(did_you_mean(&keyword.kind, ["msg"])));
            return None;
        }
        let message = self.line_or_variable(&argument.value, "the question");
        let (by, timeout_ms) = block.as_ref().map_or_else(|| Some((Vec::new(), None)), |block| self.asked(block))?;
        Some(Wait::Confirm { message: message?, by, timeout_ms })
    }

    fn no_question<T>(&mut self, name: &Name) -> Option<T> {
        let finding = Finding::new(Code::Shape, name.span, format!("{} takes a question in quotes", quoted(&name.kind)));
        self.error(finding.help(format!("write `{} 'Ship it?'`, or `{0} 'Ship it?' {{ by = ['ops'] timeout = 2d }}`", name.kind)));
        None
    }

    /// `{ by = ['ops'] timeout = 2d }`: who may answer, and how long it is waited for.
    pub(in crate::lower) fn asked(&mut self, block: &Block) -> Option<(Vec<String>, Option<u64>)> {
        let keys = self.keyed(&block.kind, &ASKED);
        let by = match keys.get("by") {
            Some(entry) => {
                let value = self.value_of(entry)?;
                self.answerers(value)?
            }
            None => Vec::new(),
        };
        Some((by, self.wait_timeout(keys.get("timeout").copied())?))
    }

    /// People and groups of the project's configuration.
    pub(in crate::lower) fn answerers(&mut self, value: &Value) -> Option<Vec<String>> {
        let names = self.lines_of_text(value, "the name of a person or a group")?;
        if names.is_empty() {
            return self.wrong_value(value, "nobody could answer", "leave `by` out if all who may approve may answer");
        }
        Some(names.into_iter().map(|name| name.kind).collect())
    }

    /// `timeout = 2d`; `Some(None)` where nothing is said.
    #[expect(clippy::option_option, reason = "a wrong one is told, and none is said")]
    fn wait_timeout(&mut self, entry: Option<&Entry>) -> Option<Option<u64>> {
        let Some(entry) = entry else { return Some(None) };
        let value = self.value_of(entry)?;
        self.duration_within(value, "a timeout", WAIT_MS_MIN).map(Some)
    }

    /// `webhook { description = 'Pingdom' timeout = 1h }`.
    pub(in crate::lower) fn webhook(&mut self, entry: &Entry) -> Option<Wait> {
        let form = "write `webhook { description = 'the smoke tests passed' }`";
        let Some(block) = Self::block_of(entry) else {
            self.error(Finding::new(Code::Shape, entry.name.span, "`webhook` takes a block").help(form));
            return None;
        };
        let keys = self.keyed(&block.kind, &WEBHOOK);
        let Some(description) = keys.get("description") else {
            self.missing_key(&entry.name, block, &WEBHOOK, "description", form);
            return None;
        };
        let value = self.value_of(description)?;
        let description = self.line_or_variable(value, "a description");
        let timeout_ms = self.wait_timeout(keys.get("timeout").copied())?;
        Some(Wait::Webhook { description: description?, timeout_ms })
    }

    /// `poll { url = '…' status = 200 every = 10s timeout = 10m }`.
    pub(in crate::lower) fn poll(&mut self, entry: &Entry) -> Option<Wait> {
        let Some(block) = Self::block_of(entry) else {
            self.error(Finding::new(Code::Shape, entry.name.span, "`poll` takes a block").help(POLL_FORM));
            return None;
        };
        let keys = self.keyed(&block.kind, &POLL);
        let Some(url) = keys.get("url") else {
            self.missing_key(&entry.name, block, &POLL, "url", POLL_FORM);
            return None;
        };
        let url = self.value_of(url).and_then(|value| self.address(value));
        let status = match keys.get("status") {
            Some(entry) => {
                let value = self.value_of(entry)?;
                u16::try_from(self.number_within(value, "`status`", 100..=599)?).ok()?
            }
            None => POLL_STATUS_DEFAULT,
        };
        let every_ms = match keys.get("every") {
            Some(entry) => {
                let value = self.value_of(entry)?;
                self.duration_within(value, "`every`", POLL_EVERY_MS_MIN)?
            }
            None => POLL_EVERY_MS_DEFAULT,
        };
        let timeout_ms = self.wait_timeout(keys.get("timeout").copied())?.unwrap_or(POLL_TIMEOUT_MS_DEFAULT.max(every_ms));
        if every_ms > timeout_ms {
            let finding = Finding::new(Code::SettingValue, entry.name.span, "the time is over before the address is asked again");
            self.error(finding.help("make `every` shorter than `timeout`"));
            return None;
        }
        Some(Wait::Poll { url: url?, status, every_ms, timeout_ms })
    }

    /// An address of `http` or `https`, without a password in it.
    fn address(&mut self, value: &Value) -> Option<plan::Value> {
        let url = self.line_or_variable(value, "an address")?;
        let Some(text) = url.as_text() else { return Some(url) };
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return self.wrong_value(value, "an address begins with `https://` or `http://`", POLL_FORM);
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || rest.contains(char::is_whitespace) {
            return self.wrong_value(value, "this is no address", POLL_FORM);
        }
        if host.contains('@') {
            return self.wrong_value(value, "no user and no password may stand in an address", "poll an address that needs neither");
        }
        Some(url)
    }
}
