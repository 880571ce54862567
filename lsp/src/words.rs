//! The words of the language by the place where they stand, each with a line for people. Completion offers them, and hovering shows them.
//! What is right is decided by the parser alone: a test holds this table against its words.

use crate::cursor::{Bracket, Cursor};

/// What stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    File,
    Pipeline,
    Stage,
    Blueprint,
    Plan,
    Steps,
    Notify,
    Gates,
    Conditions,
    Runtime,
    Container,
    Computer,
    Services,
    Service,
    Cache,
    CacheEntry,
    Env,
    Retry,
    Parameters,
    Parameter,
    Triggers,
    Trigger,
    Environments,
    Environment,
    Credentials,
    Credential,
    Person,
    Waits,
    Webhook,
    Poll,
    StepDefinition,
    /// Where no word has a meaning of its own.
    Other,
}

impl Place {
    /// Where a cursor stands.
    pub(crate) fn of(cursor: &Cursor) -> Self {
        let mut place = Self::File;
        for frame in cursor.frames.iter().skip(1) {
            let is_steps = matches!(place, Self::Steps) || place.inside(&frame.head) == Self::Steps;
            place = match frame.bracket {
                Bracket::File => Self::File,
                Bracket::Brace => place.inside(&frame.head),
                Bracket::List if is_steps => Self::Steps,
                Bracket::Parenthesis if frame.head == "when" => Self::Conditions,
                Bracket::List | Bracket::Parenthesis => Self::Other,
            };
        }
        place
    }

    fn inside(self, head: &str) -> Self {
        match (self, head) {
            (Self::Steps | Self::Notify, _) | (_, "steps") => Self::Steps,
            (Self::StepDefinition | Self::Blueprint | Self::File, "parameters" | "vars") => Self::Parameters,
            (Self::Parameters, _) => Self::Parameter,
            (Self::File, "pipeline") => Self::Pipeline,
            (Self::File, "blueprint") => Self::Blueprint,
            (Self::File, "step") => Self::StepDefinition,
            (Self::File, "triggers") => Self::Triggers,
            (Self::Triggers, _) => Self::Trigger,
            (Self::File, "environments") => Self::Environments,
            (Self::Environments, _) => Self::Environment,
            (Self::File, "credentials") => Self::Credentials,
            (Self::Credentials, _) => Self::Credential,
            (Self::Gates, "enter" | "exit") | (_, "when") => Self::Conditions,
            (Self::Conditions | Self::Waits, "webhook") => Self::Webhook,
            (Self::Conditions | Self::Waits, "poll") => Self::Poll,
            (Self::Runtime, "docker") => Self::Container,
            (Self::Runtime, "computer") => Self::Computer,
            (Self::Services, _) => Self::Service,
            (Self::Cache, _) => Self::CacheEntry,
            (_, "env" | "settings") => Self::Env,
            (_, "stage" | "rollback") => Self::Stage,
            (_, "plan" | "stages" | "parallel" | "fanout" | "each") => Self::Plan,
            (_, "notify") => Self::Notify,
            (_, "gates") => Self::Gates,
            (_, "runtime") => Self::Runtime,
            (_, "services") => Self::Services,
            (_, "cache") => Self::Cache,
            (_, "retry") => Self::Retry,
            (_, "confirm" | "prompt") | (Self::Conditions, "input") => Self::Person,
            (_, "wait") => Self::Waits,
            _ => Self::Other,
        }
    }

    /// The words that may stand here, each with what it does.
    pub(crate) fn words(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let groups: &[&[(&str, &str)]] = match self {
            Self::File => &[TOP],
            Self::Pipeline => &[VERBS, SETTINGS, PIPELINE],
            Self::Stage => &[SETTINGS, STAGE, VERBS],
            Self::Plan => &[VERBS],
            Self::Blueprint => &[BLUEPRINT],
            Self::Steps => &[STEPS],
            Self::Notify => &[NOTIFY],
            Self::Gates => &[GATES],
            Self::Conditions => &[FACTS, WAITS, OPERATORS],
            Self::Runtime => &[RUNTIME],
            Self::Container => &[CONTAINER],
            Self::Computer => &[COMPUTER],
            Self::Service => &[SERVICE],
            Self::Cache => &[CACHE],
            Self::CacheEntry => &[CACHE_ENTRY],
            Self::Retry => &[RETRY],
            Self::Parameter => &[PARAMETER],
            Self::Triggers => &[TRIGGERS],
            Self::Trigger => &[TRIGGER],
            Self::Environment => &[ENVIRONMENT],
            Self::Credential => &[CREDENTIAL],
            Self::Person => &[PERSON],
            Self::Waits => &[WAITS, WAIT],
            Self::Webhook => &[WEBHOOK],
            Self::Poll => &[POLL],
            Self::StepDefinition => &[STEP_DEFINITION],
            Self::Env => &[ENV],
            Self::Services | Self::Parameters | Self::Environments | Self::Credentials | Self::Other => &[],
        };
        groups.iter().flat_map(|group| group.iter().copied())
    }

    /// What a word does here, or as a value anywhere.
    pub(crate) fn meaning(self, word: &str) -> Option<&'static str> {
        let mut everywhere = self.words().chain(FUNCTIONS.iter().copied()).chain(FACTS.iter().copied());
        everywhere.find(|(name, _)| *name == word).map(|(_, meaning)| meaning)
    }
}

/// The words that a setting can have as its value.
pub(crate) fn values(place: Place, setting: &str) -> &'static [&'static str] {
    match (place, setting) {
        (Place::Parameter, "type") => &["string", "boolean", "number", "choice", "list"],
        (_, "effect") => &["safe", "once"],
        (_, "order") => &["auto"],
        (_, "newer") => &["cancel", "wait"],
        (_, "allow_failure" | "checkout" | "docker_run" | "protected" | "expose") | (Place::Parameter, "default") => &["true", "false"],
        _ => &[],
    }
}

/// Every word of the table, for the tests of it and of the highlighting.
pub fn all() -> impl Iterator<Item = &'static str> {
    let groups = [
        TOP,
        PIPELINE,
        BLUEPRINT,
        VERBS,
        SETTINGS,
        STAGE,
        STEPS,
        NOTIFY,
        GATES,
        FACTS,
        OPERATORS,
        WAITS,
        WAIT,
        WEBHOOK,
        POLL,
        PERSON,
        RUNTIME,
        CONTAINER,
        COMPUTER,
        SERVICE,
        CACHE,
        CACHE_ENTRY,
        ENV,
        RETRY,
        PARAMETER,
        TRIGGERS,
        TRIGGER,
        ENVIRONMENT,
        CREDENTIAL,
        STEP_DEFINITION,
        FUNCTIONS,
        OLDER,
    ];
    groups.into_iter().flatten().map(|(word, _)| *word)
}

type Words = &'static [(&'static str, &'static str)];

const TOP: Words = &[
    ("use", "Brings step libraries into scope: `use { stdlib './common/slack' }`. `stdlib` is there without it."),
    ("configure", "Settings of steps: `configure { slack { channel = '#otto' } }`."),
    ("parameters", "What a run can be given, with types and defaults; `params.x` is its value."),
    ("triggers", "What starts a run. Without it: every push, every pull request, and by hand."),
    ("environments", "Where this pipeline deploys: settings, credentials, and what is protected."),
    ("credentials", "References to secrets: `deploy-key = vault('secret/data/team/deploy#key')`."),
    ("pipeline", "What is done, in the order in which it is written."),
    ("blueprint", "A pipeline for reuse: `parameters` and a `plan`."),
    ("step", "A step that is made of steps: `step 'name' { parameters { … } steps [ … ] }`."),
];
const PIPELINE: Words = &[
    ("order", "`order = auto`: a stage waits only for what it uses."),
    ("newer", "What a newer run of the branch does with this one: `cancel` it, or `wait`."),
];
const BLUEPRINT: Words = &[("parameters", "What the blueprint is given where it is used."), ("plan", "Its stages.")];
const VERBS: Words = &[
    ("stage", "One unit of work, placed on one agent; with stages in it, a group."),
    ("steps", "Steps without a stage around them."),
    ("parallel", "Stages that run at once; all run to their end."),
    ("fanout", "Stages that run at once; the first failure cancels the others."),
    ("each", "A stage for each value, or combination of values: `each(os: ['linux', 'mac']) { … }`. `it` is the value."),
    ("from", "The stages of a blueprint stand here: `from blueprint: 'x', name: 'value'`."),
    ("confirm", "A person approves this delivery: `confirm 'Ship it?' { by = ['ops'] }`."),
    ("prompt", "A person's answer becomes a variable: `prompt msg: '…', into: 'color'`."),
    ("wait", "Waits for a webhook, a poll, or a time, without an agent."),
    ("pause", "Waits until a person goes on."),
    ("rollback", "Runs if a later stage fails; the last one first."),
    ("notify", "Steps on the outcome: `success`, `failure`, `complete`."),
];
const SETTINGS: Words = &[
    ("runtime", "What the agent must have: a container image, a labelled computer, or capabilities."),
    ("env", "Environment variables of all steps."),
    ("timeout", "How long it may take: `timeout = 10m`. `1h` if nothing is said."),
    ("retry", "When it is started again: `retry { attempts = 3 backoff = 10s on = ['lost', 'failed'] }`."),
    ("lock", "Only one at a time with this name."),
    ("cache", "Folders that later stages or runs use."),
    ("checkout", "`checkout = false`: the work directory is empty."),
];
const STAGE: Words = &[
    ("name", "The stage's name; the canonical spelling is `stage 'Name' { … }`."),
    ("needs", "Stages that this one waits for: `needs = ['Build']`."),
    ("environment", "Where it deploys: `environment -> production`. It is then started only once."),
    ("credentials", "The credentials that its steps may use."),
    ("effect", "`safe`: may be started again. `once`: never without a person."),
    ("allow_failure", "`allow_failure = true`: its failure makes the run unstable, not failed."),
    ("services", "Containers beside the steps, reachable by their names."),
    ("gates", "What must hold, or is waited for, before the stage (`enter`) and after it (`exit`)."),
    ("when", "The older spelling of the conditions of `gates { enter { … } }`."),
];
const STEPS: Words = &[("when", "Steps that are only there if a condition holds: `when(branch == 'main') { … }`. Decided while planning.")];
const NOTIFY: Words = &[
    ("success", "Steps after a success."),
    ("failure", "Steps after a failure."),
    ("complete", "Steps after any end, abort and timeout included."),
];
const GATES: Words = &[
    ("enter", "Before an agent is allocated: a false condition skips the stage."),
    ("exit", "After the agent is released."),
    ("from", "Copies the gates of another stage."),
];
const FACTS: Words = &[
    ("branch", "The branch that was pushed; empty on a pull request."),
    ("tag", "The tag that was pushed."),
    ("event", "What happened: `push`, `tag`, `pull_request`, `merge_queue`, `cron`, `manual`."),
    ("commit", "The commit's id."),
    ("pr.target", "The branch that the pull request would be merged into."),
    ("pr.source", "The branch that has the pull request's commits."),
    ("pr.fork", "Whether the pull request comes from another repository."),
    ("pr.number", "The pull request's number."),
    ("changed", "Whether a path changed: `changed('docs/**')`."),
    ("exists", "Whether the commit has a path: `exists('Cargo.toml')`."),
    ("it", "The value of the `each` around."),
];
const OPERATORS: Words =
    &[("in", "`branch in ['main', 'next']`"), ("matches", "`branch matches 'release/*'`: `*` within a folder, `**` across.")];
const WAITS: Words = &[
    ("input", "Waits for a person: `input 'Go on?'`."),
    ("webhook", "Waits for a request from outside."),
    ("poll", "Asks an address until it answers as expected."),
];
const WAIT: Words = &[("time", "How long: `time = 10m`.")];
const WEBHOOK: Words = &[("description", "What is waited for."), ("timeout", "How long at most.")];
const POLL: Words = &[
    ("url", "The address that is asked."),
    ("status", "The status that ends the waiting: `200`."),
    ("every", "How often it is asked: `10s`."),
    ("timeout", "How long at most: `10m`."),
];
const PERSON: Words = &[
    ("by", "Who may answer: people or groups."),
    ("timeout", "How long the answer is waited for."),
    ("name", "The name of this wait in the plan."),
    ("description", "What is asked."),
];
const RUNTIME: Words = &[
    ("docker", "Steps run in this image: `docker { image = 'ruby:3.4' }`."),
    ("computer", "A computer with this label."),
    ("arch", "The processor's architecture: `'amd64'`."),
    ("cores", "Processor cores that are needed."),
    ("memory", "Memory that is needed: `2G`."),
    ("docker_run", "Whether steps start containers themselves."),
    ("from", "Copies the runtime of another stage."),
];
const CONTAINER: Words = &[("image", "The image, with its tag or digest.")];
const COMPUTER: Words = &[("label", "The computer's label.")];
const SERVICE: Words = &[
    ("image", "The service's image."),
    ("env", "Its environment variables."),
    ("port", "The port on which it answers."),
    ("ready", "A command that succeeds as soon as the service is ready."),
];
const CACHE: Words = &[("use", "Uses a cache that another stage fills: `use assets`."), ("from", "Copies the caches of another stage.")];
const CACHE_ENTRY: Words = &[("paths", "The folders that are kept."), ("key", "Between runs it is found by this: `files('Cargo.lock')`.")];
const ENV: Words = &[("from", "Copies the environment variables of another stage.")];
const RETRY: Words = &[
    ("attempts", "How often it is started at most."),
    ("backoff", "How long is waited between: `10s`."),
    ("on", "After what: `'lost'` (its agent), `'failed'`."),
];
const PARAMETER: Words = &[
    ("description", "What it is, for people."),
    ("type", "`string`, `boolean`, `number`, `choice` or `list`."),
    ("default", "Its value where none is given."),
    ("options", "The values of a `choice`."),
    ("required", "Whether a call must give it."),
];
const TRIGGERS: Words = &[
    ("push", "A branch was pushed: `push { branches = ['main'] paths = ['src/**'] }`."),
    ("tag", "A tag was pushed: `tag 'v*'`."),
    ("pull_request", "A pull request was opened or changed."),
    ("merge_queue", "A merge queue asks."),
    ("cron", "At a time, in UTC: `cron '0 3 * * *'`."),
    ("manual", "A person or program asks."),
];
const TRIGGER: Words = &[
    ("branches", "Only these branches; patterns."),
    ("paths", "Only if one of these changed; patterns."),
    ("tags", "Only these tags; patterns."),
];
const ENVIRONMENT: Words = &[
    ("settings", "Environment variables of the stages that deploy there."),
    ("credentials", "The only credentials that those stages may use."),
    ("protected", "`protected = true`: only an approved delivery."),
];
const CREDENTIAL: Words = &[
    ("ref", "Where the secret is: `vault('path#key')`."),
    ("hosts", "The hosts that it may be sent to."),
    ("expose", "Whether steps see the secret itself."),
];
const STEP_DEFINITION: Words = &[
    ("description", "What the step does."),
    ("parameters", "What it is given; `params.x` in its steps."),
    ("steps", "The steps that it is made of."),
];
const FUNCTIONS: Words = &[
    ("concat", "Texts, one after the other: `concat('a', it)`."),
    ("format", "`format('{}-{}', a, b)`"),
    ("join", "A list as a text: `join(list, ', ')`."),
    ("files", "The digest of files' contents: `files('Cargo.lock')`."),
    ("json", "A list that is read from the repository: `json('matrix.json')`."),
    ("vault", "A reference to a secret: `vault('path#key')`."),
    ("params", "The value of a parameter: `params.x`."),
    ("vars", "A variable of the run: from a `prompt`, or captured by a step with `into:`."),
];
const OLDER: Words = &[("stages", "The older spelling of no block at all."), ("vars", "The older spelling of `parameters`.")];
