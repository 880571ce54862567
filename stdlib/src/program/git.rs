//! `git`: clones a repository into the work directory. The address and the name of what is wanted come from anywhere: they are never taken
//! for options or commands, nobody is asked, and nothing of the clone is run.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use super::{
    End, ProgramError,
    agent::Agent,
    arguments::{ArgumentError, Arguments, path_below},
    say,
};

/// The transports that git may use; `ext` would run what the address says.
const PROTOCOLS: &str = "https:ssh:file";
/// What the agent's user or its system have set up has no part in it.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "/bin/false"),
    ("SSH_ASKPASS", "/bin/false"),
    ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
    ("GIT_ALLOW_PROTOCOL", PROTOCOLS),
];
/// Settings that the clone cannot change.
const SETTINGS: [&str; 5] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "advice.detachedHead=false",
];

/// Why there is no clone.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// There is no git.
    #[error("cannot start `git`: is it installed on the agent?")]
    Start(#[source] io::Error),
    /// It has said why.
    #[error("git {command}: {status}")]
    Failed {
        /// What it was to do.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
    },
    /// Something is there already.
    #[error("`{0}` is there already, and not empty")]
    Occupied(String),
    /// The folder cannot be looked at.
    #[error("cannot use the folder `{path}`")]
    Folder {
        /// The folder.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no such thing.
    #[error("the repository has no branch, tag or commit `{0}`")]
    NoRevision(String),
}

pub(super) fn run(arguments: &Arguments, _agent: &Agent) -> Result<End, ProgramError> {
    let here = env::current_dir().map_err(|source| GitError::Folder { path: ".".to_owned(), source })?;
    let (into, commit) = cloned(arguments, &here)?;
    say(&format!("{into}: {commit}"))?;
    Ok(End::Success)
}

/// Clones; gives the folder, from `here`, and the commit.
fn cloned(arguments: &Arguments, here: &Path) -> Result<(String, String), ProgramError> {
    let text = arguments.text("url")?;
    let url = address(text, here)?;
    let into = match arguments.optional_text("into")? {
        Some(into) => path_below("into", into)?,
        None => path_below("url", default_folder(text))?,
    };
    let clone = Clone { folder: here.join(&into), url, depth: arguments.count("depth")?.map(|depth| format!("--depth={depth}")) };
    prepare(&clone.folder, &into)?;
    clone.git("init", &["--quiet", "--template="])?;
    clone.git("remote", &["add", "--", "origin", &clone.url])?;
    match arguments.optional_text("branch")? {
        None => clone.default_branch()?,
        Some(name) => {
            check_revision(name)?;
            clone.revision(name)?;
        }
    }
    let commit = clone.ask("rev-parse", &["--verify", "HEAD"])?;
    Ok((into, commit.trim_end().to_owned()))
}

/// The address as git is given it. A path is one below the folder of the step.
fn address(text: &str, here: &Path) -> Result<String, ArgumentError> {
    let wrong = |what| ArgumentError::Value { name: "url", text: text.to_owned(), what };
    if text.starts_with('-') || text.contains(|character: char| character.is_control()) {
        return Err(wrong("is no address"));
    }
    if text.contains("::") {
        return Err(wrong("names a program that git would run"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        // An ssh host that begins with a minus would be an option of ssh.
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        return match scheme {
            "https" | "ssh" if !rest.starts_with('-') && !host.starts_with('-') => Ok(text.to_owned()),
            _ => Err(wrong("is neither `https://…`, `ssh://…`, `user@host:path` nor a path of the work directory")),
        };
    }
    match text.split_once(':') {
        Some((host, _)) if !host.contains('/') && !host.rsplit('@').any(|part| part.starts_with('-')) => Ok(text.to_owned()),
        Some((host, _)) if !host.contains('/') => Err(wrong("has a host that begins with a `-`")),
        Some(_) | None => Ok(format!("file://{}", here.join(path_below("url", text)?).display())),
    }
}

/// The last part of an address, without `.git`.
fn default_folder(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    let last = url.rsplit(['/', ':']).next().unwrap_or(url);
    last.strip_suffix(".git").unwrap_or(last)
}

/// Whether it can be the name of a branch, a tag or a commit (`man git-check-ref-format`).
fn check_revision(name: &str) -> Result<(), ArgumentError> {
    let is_odd = |character: char| character.is_control() || " ~^:?*[\\".contains(character);
    let is_wrong = name.is_empty()
        || name.starts_with('-')
        || name.contains(is_odd)
        || name.contains("..")
        || name.contains("@{")
        || name == "@"
        || name.ends_with(['/', '.'])
        || name
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.') || Path::new(part).extension().is_some_and(|end| end == "lock"));
    if is_wrong {
        return Err(ArgumentError::Value {
            name: "branch",
            text: name.to_owned(),
            what: "cannot be the name of a branch, a tag or a commit",
        });
    }
    Ok(())
}

fn prepare(folder: &Path, shown: &str) -> Result<(), GitError> {
    let failed = |source| GitError::Folder { path: shown.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    match fs::read_dir(folder).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(GitError::Occupied(shown.to_owned())),
    }
}

/// A clone in the making.
#[derive(Debug)]
struct Clone {
    folder: PathBuf,
    url: String,
    depth: Option<String>,
}

impl Clone {
    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut git = Command::new("git");
        for setting in SETTINGS {
            git.args(["-c", setting]);
        }
        git.arg("-C").arg(&self.folder).arg(command).args(arguments).envs(ENVIRONMENT).stdin(Stdio::null());
        // A variable of the stage would have git look elsewhere.
        for name in
            ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_EXEC_PATH"]
        {
            git.env_remove(name);
        }
        git
    }

    /// Runs git; what it says goes to the log.
    fn git(&self, command: &'static str, arguments: &[&str]) -> Result<(), GitError> {
        let status = self.command(command, arguments).status().map_err(GitError::Start)?;
        if status.success() { Ok(()) } else { Err(GitError::Failed { command, status }) }
    }

    /// What git says.
    fn ask(&self, command: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.command(command, arguments).stderr(Stdio::inherit()).output().map_err(GitError::Start)?;
        if !output.status.success() {
            return Err(GitError::Failed { command, status: output.status });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn fetch(&self, references: &[&str]) -> Result<(), GitError> {
        let depth = self.depth.as_deref();
        let arguments: Vec<&str> = ["--quiet", "--no-recurse-submodules"].into_iter().chain(depth).chain(["--", "origin"]).collect();
        self.git("fetch", &[&arguments, references].concat())
    }

    /// What the repository itself names.
    fn default_branch(&self) -> Result<(), GitError> {
        let answer = self.ask("ls-remote", &["--symref", "--", "origin", "HEAD"])?;
        let named = answer.lines().find_map(|line| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
        match named {
            Some(branch) if check_revision(branch).is_ok() => self.branch(branch),
            Some(_) | None => {
                self.fetch(&["HEAD"])?;
                self.git("checkout", &["--quiet", "--detach", "FETCH_HEAD"])
            }
        }
    }

    /// A branch, a tag or a commit, whichever there is, in this order.
    fn revision(&self, name: &str) -> Result<(), GitError> {
        let (branch, tag) = (format!("refs/heads/{name}"), format!("refs/tags/{name}"));
        let answer = self.ask("ls-remote", &["--", "origin", &branch, &tag])?;
        let has = |reference: &str| answer.lines().any(|line| line.split('\t').nth(1) == Some(reference));
        if has(&branch) {
            return self.branch(name);
        }
        if has(&tag) {
            self.fetch(&[&format!("+{tag}:{tag}")])?;
            return self.git("checkout", &["--quiet", "--detach", &tag]);
        }
        let is_commit = (4..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_commit {
            return Err(GitError::NoRevision(name.to_owned()));
        }
        // Few servers give a commit by itself, so everything is fetched that could lead to it.
        let whole = Self { folder: self.folder.clone(), url: self.url.clone(), depth: None };
        whole.fetch(&["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"])?;
        let commit = format!("{name}^{{commit}}");
        let found = self.command("rev-parse", &["--quiet", "--verify", "--end-of-options", &commit]).output().map_err(GitError::Start)?;
        if !found.status.success() {
            return Err(GitError::NoRevision(name.to_owned()));
        }
        self.git("checkout", &["--quiet", "--detach", &commit])
    }

    fn branch(&self, name: &str) -> Result<(), GitError> {
        let remote = format!("refs/remotes/origin/{name}");
        self.fetch(&[&format!("+refs/heads/{name}:{remote}")])?;
        self.git("checkout", &["--quiet", "-B", name, "--track", &remote])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::arguments::tests::arguments, *};

    /// Runs git in a repository of the test.
    fn git(folder: &Path, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@a.example", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).envs(ENVIRONMENT).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A folder with the bare repository `upstream.git`: two commits on `main`, the first with the tag `v1`, and a branch `topic`.
    fn upstream() -> (tempfile::TempDir, [String; 3]) {
        let here = tempfile::tempdir().unwrap();
        let work = here.path().join("work");
        fs::create_dir(&work).unwrap();
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        let commit = |text: &str| {
            fs::write(work.join("file"), text).unwrap();
            git(&work, &["add", "."]);
            git(&work, &["commit", "--quiet", "--message", text]);
            git(&work, &["rev-parse", "HEAD"])
        };
        let first = commit("first");
        git(&work, &["tag", "v1"]);
        let second = commit("second");
        git(&work, &["checkout", "--quiet", "-b", "topic", "v1"]);
        let topic = commit("topic");
        git(here.path(), &["clone", "--quiet", "--bare", "work", "upstream.git"]);
        git(&here.path().join("upstream.git"), &["symbolic-ref", "HEAD", "refs/heads/main"]);
        (here, [first, second, topic])
    }

    #[test]
    fn a_branch_a_tag_and_a_commit_are_cloned() {
        let (here, [first, second, topic]) = upstream();
        for (wanted, expected, branch) in [
            (json!({}), &second, "main"),
            (json!({"branch": "topic"}), &topic, "topic"),
            (json!({"branch": "v1"}), &first, "HEAD"),
            (json!({"branch": first}), &first, "HEAD"),
            (json!({"branch": second.get(..10)}), &second, "HEAD"),
        ] {
            let mut all = json!({"url": "upstream.git"});
            all.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
            let (into, commit) = cloned(&arguments(&all), here.path()).unwrap();
            assert_eq!((into.as_str(), &commit), ("upstream", expected), "{all}");
            let clone = here.path().join(into);
            assert_eq!(git(&clone, &["rev-parse", "--abbrev-ref", "HEAD"]), branch);
            assert_eq!(git(&clone, &["status", "--porcelain"]), "");
            fs::remove_dir_all(clone).unwrap();
        }
    }

    #[test]
    fn a_clone_is_as_deep_and_where_it_is_told() {
        let (here, [_, second, _]) = upstream();
        let (into, commit) = cloned(&arguments(&json!({"url": "./upstream.git", "into": "a/b", "depth": 1})), here.path()).unwrap();
        assert_eq!((into.as_str(), &commit), ("a/b", &second));
        let clone = here.path().join("a/b");
        assert_eq!(git(&clone, &["rev-list", "--count", "HEAD"]), "1");
        assert!(!clone.join(".git/hooks").exists(), "no template of the machine is in it");
        let again = cloned(&arguments(&json!({"url": "upstream.git", "into": "a/b"})), here.path());
        assert_eq!(again.unwrap_err().to_string(), "`a/b` is there already, and not empty");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let (here, _) = upstream();
        let missing = cloned(&arguments(&json!({"url": "upstream.git", "branch": "none"})), here.path());
        assert_eq!(missing.unwrap_err().to_string(), "the repository has no branch, tag or commit `none`");
        for wrong in
            [json!({"url": "nowhere"}), json!({"url": "upstream.git", "into": "../x"}), json!({"url": "upstream.git", "branch": "--x"})]
        {
            assert!(cloned(&arguments(&wrong), here.path()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_of_a_clone_is_run() {
        let (here, _) = upstream();
        let work = here.path().join("work");
        fs::write(work.join(".gitattributes"), "* filter=evil\n").unwrap();
        fs::write(work.join(".gitmodules"), "[submodule \"a\"]\n\tpath = a\n\turl = ext::sh -c touch% evil\n").unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "--message", "evil"]);
        git(&work, &["push", "--quiet", "../upstream.git", "topic"]);
        let hooks = here.path().join("upstream.git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        fs::write(hooks.join("post-checkout"), "#!/bin/sh\ntouch evil\n").unwrap();
        cloned(&arguments(&json!({"url": "upstream.git", "branch": "topic", "into": "c"})), here.path()).unwrap();
        assert!(!here.path().join("evil").exists() && !here.path().join("c/evil").exists());
    }

    #[test]
    fn an_address_is_no_option_and_no_command() {
        let here = Path::new("/work");
        for (text, expected) in [
            ("https://example.org/a.git", "https://example.org/a.git"),
            ("ssh://git@example.org/a", "ssh://git@example.org/a"),
            ("git@example.org:a/b.git", "git@example.org:a/b.git"),
            ("vendor/a.git", "file:///work/vendor/a.git"),
            ("./a:b/c", "file:///work/a:b/c"),
        ] {
            assert_eq!(address(text, here).unwrap(), expected);
        }
        for text in [
            "ext::sh -c 'touch /tmp/x'",
            "--upload-pack=touch x",
            "-u",
            "ssh://-oProxyCommand=x/a",
            "ssh://git@-oProxyCommand=x/a",
            "-oProxyCommand=x:a",
            "git@-oProxyCommand=x:a",
            "file:///etc",
            "git://example.org/a",
            "http://example.org/a",
            "/etc",
            "../a",
            "a\nb",
        ] {
            assert!(address(text, here).is_err(), "{text}");
        }
    }

    #[test]
    fn a_clone_lies_in_a_folder_of_its_name() {
        for (url, expected) in [
            ("https://example.org/team/shop.git", "shop"),
            ("git@example.org:shop.git", "shop"),
            ("vendor/shop/", "shop"),
            ("ssh://example.org/shop", "shop"),
        ] {
            assert_eq!(default_folder(url), expected);
        }
    }

    #[test]
    fn a_revision_is_a_name() {
        for name in ["main", "release/1.2", "v1.0", "c0ffee", "a-b_c"] {
            assert_eq!(check_revision(name), Ok(()), "{name}");
        }
        for name in ["", "-b", "a b", "a..b", "a:b", "a^", "@{1}", "@", "a/", ".a", "a/.b", "a.lock", "a\n", "a*"] {
            assert!(check_revision(name).is_err(), "{name}");
        }
    }
}
