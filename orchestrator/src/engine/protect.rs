//! What the projects' configuration makes of a plan: deliveries that it refuses, and gates for those that somebody must approve.
//!
//! **Invariant:** where the configuration names approvers, the last gate before a delivery is theirs, whatever the file says. A file can ask for an
//! approval where the configuration does not; it cannot take one away.

use std::{collections::BTreeMap, sync::Arc};

use config::trust::Protection;
use model::{
    ProjectName,
    diagnostic::Diagnostic,
    event::run::WaitKey,
    plan::{Deployment, Plan, Stage, StageKind, Value, Wait},
    trigger::Trigger,
};

use super::refusal::{NO_DELIVERY, NO_RERUN, diagnostic};

/// Diagnostics of one plan: who mends the first ones hears of the others.
const REFUSALS_MAX: usize = 20;

/// What protects each project. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Protections(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    projects: BTreeMap<ProjectName, Protection>,
    /// Of a project that the configuration does not name.
    others: Protection,
}

impl Protections {
    /// Those of the projects.
    pub fn of(projects: impl IntoIterator<Item = (ProjectName, Protection)>) -> Self {
        Self(Arc::new(Known { projects: projects.into_iter().collect(), others: Protection::default() }))
    }

    fn project(&self, project: &ProjectName) -> &Protection {
        self.0.projects.get(project).unwrap_or(&self.0.others)
    }

    /// Those of whom one must approve what is asked here, by the names of their tokens; empty where the configuration names nobody.
    pub fn approvers(&self, project: &ProjectName, stage: &Stage, wait: WaitKey) -> &[String] {
        let is_last = match wait {
            WaitKey::Enter(place) => stage.enter.len() == place as usize + 1,
            WaitKey::Itself | WaitKey::Exit(_) => false,
        };
        let delivers = stage.deployment.as_ref().filter(|_| is_last && delivers_by_itself(stage));
        delivers.map_or(&[], |deployment| self.approvers_of(project, &deployment.environment))
    }

    fn approvers_of(&self, project: &ProjectName, environment: &str) -> &[String] {
        self.project(project).environments.get(environment).map_or(&[], |environment| &environment.approvers)
    }

    /// Why the trigger's run may not do what the plan says; empty if it may.
    pub(super) fn refusals(&self, trigger: &Trigger, plan: &Plan) -> Vec<Diagnostic> {
        let protection = self.project(&trigger.project);
        let stages = plan.stages.iter().filter(|stage| !matches!(stage.kind, StageKind::Wait(_)));
        let refused = stages.filter_map(|stage| {
            let environment = stage.deployment.as_ref()?.environment.as_str();
            let why = protection.refuses_delivery(environment, &trigger.context, &trigger.claims);
            let why = why.or_else(|| self.rolls_back_another(&trigger.project, plan, stage))?;
            let message = format!("the stage `{}` delivers to `{environment}`: {why}", stage.path);
            let help = "push what is to be delivered to a branch or tag that may be, or ask the administrator of this installation to change \
                        `protection` in the project's configuration";
            Some(diagnostic(NO_DELIVERY, &trigger.pipeline_path, message, help))
        });
        refused.take(REFUSALS_MAX).collect()
    }

    /// A rollback is asked for nothing, as what it takes back was approved. So it takes back nothing else.
    fn rolls_back_another(&self, project: &ProjectName, plan: &Plan, stage: &Stage) -> Option<String> {
        let deployment = stage.deployment.as_ref().filter(|_| stage.kind == StageKind::Rollback)?;
        let is_same = |other: &Stage| {
            let needed = stage.needs.iter().any(|need| need.stage == other.id);
            let environment = other.deployment.as_ref().map(|deployment| deployment.environment.as_str());
            needed && delivers_by_itself(other) && environment == Some(deployment.environment.as_str())
        };
        let is_guarded = self.is_guarded(project, deployment);
        (is_guarded && !plan.stages.iter().any(is_same)).then(|| "it takes back what no stage before it delivers there".to_owned())
    }

    /// The plan with a gate before each delivery that must be approved; `None` if it has them all.
    pub(super) fn guarded(&self, project: &ProjectName, plan: &Plan) -> Option<Plan> {
        let mut guarded = plan.clone();
        let mut is_changed = false;
        for stage in &mut guarded.stages {
            let Some(gate) = self.gate(project, stage).filter(|gate| stage.enter.last() != Some(gate)) else { continue };
            stage.enter.push(gate);
            is_changed = true;
        }
        is_changed.then_some(guarded)
    }

    /// Why the plan of an earlier run is not run again, if it is not.
    pub(super) fn refuses_rerun(&self, trigger: &Trigger, plan: &Plan) -> Vec<Diagnostic> {
        let refusals = self.refusals(trigger, plan);
        if refusals.is_empty() && self.guarded(&trigger.project, plan).is_some() {
            let message = "what protects the environments of the project has changed since the run was planned".to_owned();
            return vec![diagnostic(NO_RERUN, &trigger.pipeline_path, message, "run the pipeline anew")];
        }
        refusals
    }

    fn gate(&self, project: &ProjectName, stage: &Stage) -> Option<Wait> {
        let deployment =
            stage.deployment.as_ref().filter(|deployment| delivers_by_itself(stage) && self.is_guarded(project, deployment))?;
        let by = self.approvers_of(project, &deployment.environment).to_vec();
        // Where anybody may approve, a gate of the file does as well: nobody is asked twice for one delivery.
        if by.is_empty() && stage.enter.iter().any(|gate| matches!(gate, Wait::Confirm { .. })) {
            return None;
        }
        let message = Value::Text(format!("Deliver to `{}`?", deployment.environment));
        Some(Wait::Confirm { message, by, timeout_ms: None })
    }

    fn is_guarded(&self, project: &ProjectName, deployment: &Deployment) -> bool {
        deployment.protected || !self.approvers_of(project, &deployment.environment).is_empty()
    }
}

fn delivers_by_itself(stage: &Stage) -> bool {
    match stage.kind {
        StageKind::Work => true,
        StageKind::Rollback | StageKind::Wait(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use model::{
        StageId,
        plan::{Need, NeedReason},
        trigger::{Claims, Trust},
    };
    use serde_json::json;

    use super::*;
    use crate::core::tests::trigger;

    fn protections() -> Protections {
        let protection = json!({ "environments": { "production": { "approvers": ["ann"] }, "preprod": {} } });
        Protections::of([(trigger().project, serde_json::from_value(protection).unwrap())])
    }

    fn stage(path: &str, environment: &str, protected: bool) -> Stage {
        let deployment = Deployment { environment: environment.to_owned(), protected, settings: BTreeMap::new() };
        Stage { deployment: Some(deployment), ..Stage::new(path) }
    }

    fn of_main() -> Trigger {
        Trigger { claims: Claims { trust: Trust::Trusted, protected: true, actor: None }, ..trigger() }
    }

    #[test]
    fn the_last_gate_of_a_guarded_stage_is_the_approval_of_its_delivery() {
        let gates = |stage: Stage| {
            let plan = protections().guarded(&trigger().project, &Plan::new(vec![stage]))?;
            assert_eq!(protections().guarded(&trigger().project, &plan), None, "once is enough");
            Some(plan.stages[0].enter.clone())
        };
        let gate = |environment: &str, by: &[&str]| {
            let message = Value::Text(format!("Deliver to `{environment}`?"));
            Wait::Confirm { message, by: by.iter().map(|name| (*name).to_owned()).collect(), timeout_ms: None }
        };
        assert_eq!(gates(stage("a", "production", false)), Some(vec![gate("production", &["ann"])]));
        assert_eq!(gates(stage("a", "sandbox", true)), Some(vec![gate("sandbox", &[])]), "the file asks for more");
        let asking = Stage { enter: vec![gate("it", &["bob"]), Wait::Pause], ..stage("a", "sandbox", true) };
        assert_eq!(gates(asking), None, "it asks already");
        assert_eq!(gates(stage("a", "preprod", false)), None);
        assert_eq!(gates(Stage::new("a")), None);
        let own = gate("production", &[]);
        let with_own = Stage { enter: vec![own.clone()], ..stage("a", "production", false) };
        assert_eq!(gates(with_own), Some(vec![own, gate("production", &["ann"])]), "the file's gate is not the configuration's");
    }

    #[test]
    fn the_configuration_says_whose_approval_counts_at_the_last_gate_alone() {
        let planned = Stage { enter: vec![Wait::Pause, Wait::Pause], ..stage("a", "production", false) };
        let approvers = |wait| protections().approvers(&trigger().project, &planned, wait).to_vec();
        assert_eq!(approvers(WaitKey::Enter(1)), ["ann"]);
        assert!(approvers(WaitKey::Enter(0)).is_empty() && approvers(WaitKey::Exit(1)).is_empty());
    }

    #[test]
    fn what_may_not_be_delivered_is_refused_with_the_reason() {
        let refused = |trigger: &Trigger, stage: Stage| {
            let refusals = protections().refusals(trigger, &Plan::new(vec![stage]));
            refusals.first().map(|refusal| format!("{}: {}", refusal.code, refusal.message)).unwrap_or_default()
        };
        let branch = || Trigger { claims: Claims { protected: false, ..of_main().claims }, ..of_main() };
        let production = || stage("Ship", "production", false);
        assert_eq!(refused(&of_main(), production()), "");
        assert_eq!(refused(&branch(), stage("Try", "sandbox", false)), "");
        let said = refused(&trigger(), production());
        assert!(said.starts_with("E0907: the stage `Ship` delivers to `production`: an untrusted run"), "{said}");
        assert!(refused(&branch(), production()).starts_with("E0907: the stage `Ship` delivers to `production`: the project's conf"));
        assert!(refused(&trigger(), stage("Try", "sandbox", false)).starts_with("E0907"));
        let elsewhere = Trigger { project: "elsewhere".parse().unwrap(), ..trigger() };
        assert!(refused(&elsewhere, production()).starts_with("E0907"), "also of a project that nobody has configured");
    }

    #[test]
    fn a_rollback_takes_back_only_what_was_approved() {
        let rollback = |needs: &[&str]| {
            let needs = needs.iter().map(|need| Need { stage: StageId::of(need), reason: NeedReason::Rollback });
            Stage { kind: StageKind::Rollback, needs: needs.collect(), ..stage("Undo", "production", false) }
        };
        let refused = |rollback| {
            let plan = Plan::new(vec![stage("Ship", "production", false), stage("Try", "sandbox", false), rollback]);
            protections().refusals(&of_main(), &plan).len()
        };
        assert_eq!([refused(rollback(&["Ship"])), refused(rollback(&["Try"])), refused(rollback(&[]))], [0, 1, 1]);
    }

    #[test]
    fn a_plan_that_lacks_a_gate_now_is_not_run_again() {
        let plan = Plan::new(vec![stage("Ship", "production", false)]);
        let refused = protections().refuses_rerun(&of_main(), &plan);
        assert_eq!(refused[0].code, NO_RERUN);
        let guarded = protections().guarded(&trigger().project, &plan).unwrap();
        assert_eq!(protections().refuses_rerun(&of_main(), &guarded), []);
        assert_eq!(protections().refuses_rerun(&trigger(), &guarded)[0].code, NO_DELIVERY);
    }
}
