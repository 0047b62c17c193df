//! What keeps recoverable what must stay recoverable: who is harmed already, and who may be harmed beside.
//!
//! A machine is *impaired* while something of its folder is lost that only its peers can give back: damage in its log, a
//! lost engine, or the folder itself. As long as no more machines are impaired than may fail, each committed entry has a
//! whole copy, because a quorum held it. Helical rot is the exception that proves more: every machine is damaged, but no
//! entry on more than one.

use crate::churn::Standing;
use crate::network::ProcessId;
use crate::process::{LogFound, Process, name, read_log};
use crate::world::World;
use quorate_log::Log;
use quorate_node::Phase;
use quorate_types::{GroupId, Index};

impl World {
    /// How many machines may fail.
    pub(crate) fn tolerance(&self) -> usize {
        (self.voter_count() - 1) / 2
    }

    /// Something of this machine's log is damaged, or about to be.
    pub(crate) fn wound(&mut self, id: ProcessId) {
        let process = &mut self.processes[id.0];
        process.is_wounded = true;
        process.is_tainted = true;
        process.claims = crate::checkers::claims::Claims::default();
    }

    /// Whether this machine may be harmed for good or until its peers help.
    pub(crate) fn may_harm(&mut self, victim: ProcessId) -> bool {
        let others: Vec<ProcessId> = self.ids().filter(|id| *id != victim).collect();
        let impaired = others.into_iter().filter(|id| self.is_impaired(*id)).count();
        // While members change, what heals one may need the word of another that leaves.
        let is_settled = self.are_members_settled()
            && self.is_member(victim, true)
            && self.knows_members(victim);
        is_settled && !self.processes[victim.0].is_exiled && impaired < self.tolerance()
    }

    /// Whether this machine's log may be harmed. Its very end may be what is lost, and with it the hard state, which takes
    /// all other voters to make up for: while one of them is out for good, none may lose it.
    pub(crate) fn may_harm_log(&mut self, victim: ProcessId) -> bool {
        let needs_nobody = |id: ProcessId| {
            !self.processes[id.0].is_exiled && (id == victim || !self.has_forgotten(id))
        };
        self.ids().all(needs_nobody) && self.may_harm(victim)
    }

    /// Whether a machine has lost its hard state, or would have if it started now.
    fn has_forgotten(&self, id: ProcessId) -> bool {
        let process = &self.processes[id.0];
        let left = || read_log(&process.disk.durable(), self.mix.log(id), self.group());
        let is_lost = || left().is_ok_and(|LogFound { log, .. }| log.hard_state.is_none());
        process.is_forgetful || process.is_wounded && is_lost()
    }

    /// Whether this machine's folder may be lost for good: nobody else's hard state needs it.
    pub(crate) fn may_exile(&mut self, victim: ProcessId) -> bool {
        let others: Vec<ProcessId> = self.ids().filter(|id| *id != victim).collect();
        let are_sound =
            others.into_iter().all(|id| !self.is_impaired(id) || !self.processes[id.0].is_wounded);
        are_sound && self.all_others_are_whole(victim) && self.may_harm(victim)
    }

    /// Whether nobody is impaired.
    pub(crate) fn all_are_sound(&mut self) -> bool {
        let ids: Vec<ProcessId> = self.ids().collect();
        let are_up_to_date = ids.iter().all(|id| self.knows_members(*id));
        if !self.are_members_settled() || !are_up_to_date {
            return false;
        }
        !ids.into_iter().any(|id| self.is_impaired(id))
    }

    /// Whether something of this machine's folder is lost that only its peers can give back.
    pub(crate) fn is_impaired(&mut self, id: ProcessId) -> bool {
        if self.processes[id.0].is_wounded && self.is_log_sound(id) {
            self.processes[id.0].is_wounded = false;
            self.processes[id.0].is_forgetful = false;
        }
        let process = &self.processes[id.0];
        process.is_exiled || process.is_stateless || process.is_wounded
    }

    /// Whether the durable half of a log is whole, and its node agrees.
    fn is_log_sound(&self, id: ProcessId) -> bool {
        let process = &self.processes[id.0];
        let is_under_way = process.sabotaged.is_some_and(|write| process.disk.is_in_flight(write));
        let is_owed = process.sabotage.is_some() || is_under_way || process.disk.is_loss_open();
        // One behind the end harms the log once that comes near it.
        if is_owed || process.disk.is_ailing("log") {
            return false;
        }
        let opened = Log::open(&process.disk.durable(), self.mix.log(id).clone());
        let Ok((_, recovery)) = opened else { return false };
        let Some(group) = recovery.groups.get(&GroupId(0)) else { return false };
        let is_sure = group.hard_state.is_some_and(|state| state.log_epoch.number > 0);
        let is_whole = recovery.reports.is_empty() && group.faults.is_empty();
        let is_new = group.bounds.last == Index::ZERO;
        let name = name(id);
        let configuration = group.configurations.last().map(|(_, configuration)| configuration);
        let is_member =
            configuration.is_some_and(|it| it.members.values().any(|member| member.name == name));
        let agrees = self.group_status(id).is_none_or(|status| status.why_not.is_none());
        is_whole && is_sure && !is_new && is_member && agrees
    }

    /// Whether every other process that can take part runs on a state of its own.
    pub(crate) fn all_others_are_whole(&self, victim: ProcessId) -> bool {
        let is_whole = |id: ProcessId| {
            let status = self.processes[id.0].running.as_ref().map(|it| it.status(self.now));
            status.is_some_and(|status| {
                status.phase == Phase::Running && status.awaiting_snapshot.is_empty()
            })
        };
        self.ids().filter(|id| *id != victim).all(is_whole)
    }

    /// All processes that take part or are to.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ProcessId> + use<> {
        let is_present = |(_, it): &(usize, &Process)| it.standing == Standing::Present;
        let present = self.processes.iter().enumerate().filter(is_present);
        present.map(|(id, _)| ProcessId(id)).collect::<Vec<_>>().into_iter()
    }

    /// The processes that can take part.
    pub(crate) fn citizens(&self) -> Vec<ProcessId> {
        let is_citizen =
            |id: &ProcessId| !self.processes[id.0].is_exiled && self.is_member(*id, false);
        self.ids().filter(is_citizen).collect()
    }
}
