//! `etcdserverpb.Cluster`: who takes part, and changing it.
//!
//! A change is answered once the cluster has taken it in; its steps follow by themselves. A member that is added as a
//! voter learns the log before it votes, so that an addition never costs a quorum.

use crate::door::Door;
use crate::errors::EtcdError;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use crate::replica::{Failure, Replica, SYSTEM_GROUP};
use quorate_consensus::plan;
use quorate_runtime::RequestError;
use quorate_store::engine::Engine;
use quorate_types::{Configuration, Incarnation, Intent, NodeId};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl<R: Replica, E: Engine> Cluster for Door<R, E> {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        if request.get_ref().linearizable {
            self.barrier(false, timeout).await?;
        }
        let header = self.header().at(self.reader().revision().0);
        let members = self.members()?;
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.admit(request.metadata())?;
        let message = request.get_ref();
        let peer_address = peer_address(&message.peer_ur_ls)?;
        let mut added = NodeId(0);
        self.change(|base, target| {
            check_free(base, &peer_address, None)?;
            added = plan::next_node(base);
            // Its name is known once it has started.
            let member = quorate_types::Member {
                incarnation: Incarnation::UNBOUND,
                name: String::new(),
                peer_address: peer_address.clone(),
                voter: !message.is_learner,
                outgoing_voter: false,
                intent: Intent::Stay,
            };
            target.members.insert(added, member);
            Ok(())
        })
        .await?;
        let header = self.header().at(self.reader().revision().0);
        let members = self.members()?;
        let member = Some(Member {
            id: added.0,
            peer_ur_ls: message.peer_ur_ls.clone(),
            is_learner: message.is_learner,
            ..Member::default()
        });
        Ok(Response::new(MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.admit(request.metadata())?;
        let id = NodeId(request.get_ref().id);
        self.change(|_, target| {
            target.members.remove(&id).map(|_| ()).ok_or(EtcdError::MemberNotFound)
        })
        .await?;
        let header = self.header().at(self.reader().revision().0);
        let mut members = self.members()?;
        members.retain(|member| member.id != id.0);
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.admit(request.metadata())?;
        let message = request.get_ref();
        let (id, peer_address) = (NodeId(message.id), peer_address(&message.peer_ur_ls)?);
        self.change(|base, target| {
            check_free(base, &peer_address, Some(id))?;
            let member = target.members.get_mut(&id).ok_or(EtcdError::MemberNotFound)?;
            member.peer_address.clone_from(&peer_address);
            Ok(())
        })
        .await?;
        let header = self.header().at(self.reader().revision().0);
        let members = self.members()?;
        Ok(Response::new(MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.admit(request.metadata())?;
        let id = NodeId(request.get_ref().id);
        self.change(|_, target| {
            let member = target.members.get_mut(&id).ok_or(EtcdError::MemberNotFound)?;
            if member.voter {
                return Err(EtcdError::MemberNotLearner);
            }
            if member.incarnation == Incarnation::UNBOUND {
                return Err(EtcdError::LearnerNotReady);
            }
            member.voter = true;
            Ok(())
        })
        .await?;
        let header = self.header().at(self.reader().revision().0);
        let members = self.members()?;
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

impl<R: Replica, E: Engine> Door<R, E> {
    /// Asks for the members that `edit` makes of those that there are or are to be.
    async fn change(
        &self,
        edit: impl FnOnce(&Configuration, &mut Configuration) -> Result<(), EtcdError> + Send,
    ) -> Result<(), Status> {
        let status = self.replica().status();
        let group = status.groups.get(&SYSTEM_GROUP);
        let base = group.map(|group| group.configuration.clone());
        let base = base.ok_or_else(|| EtcdError::NotCapable.status())?;
        let mut target = plan::aim(&base);
        edit(&base, &mut target).map_err(EtcdError::status)?;
        if target.voters().next().is_none() {
            return Err(EtcdError::MemberNotEnoughStarted.status());
        }
        self.replica().change_members(base, target).await.map_err(|error| match error {
            // Which members answer, and which change is under way, can be otherwise a moment later.
            RequestError::Declined(text) => {
                tracing::warn!("a change of members is declined: {text}");
                EtcdError::Unhealthy.status()
            }
            RequestError::Refused { .. }
            | RequestError::Unknown { .. }
            | RequestError::Stopped(_) => Failure::from(error).into(),
        })
    }

    /// The members of the logged configuration, with what they published themselves.
    fn members(&self) -> Result<Vec<Member>, Status> {
        let status = self.replica().status();
        let Some(group) = status.groups.get(&SYSTEM_GROUP) else {
            return Ok(Vec::new());
        };
        let attributes = self
            .reader()
            .members_attributes()
            .map_err(|fault| self.unreadable(quorate_store::ReadError::Fault(fault)))?;
        let members = group.configuration.members.iter().map(|(id, member)| {
            // Without attributes the member has not started, which clients see by its empty name.
            let published = attributes.get(id).cloned().unwrap_or_default();
            Member {
                id: id.0,
                name: published.name,
                peer_ur_ls: vec![format!("http://{}", member.peer_address)],
                client_ur_ls: published.client_urls,
                is_learner: !member.voter && !member.outgoing_voter,
            }
        });
        Ok(members.collect())
    }
}

/// The `host:port` of a member's one peer URL.
pub(crate) fn peer_address(urls: &[String]) -> Result<String, Status> {
    let bad = || EtcdError::MemberBadUrls.status();
    let [url] = urls else { return Err(bad()) };
    let address = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let is_plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    let has_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if is_plain && has_port { Ok(address.to_owned()) } else { Err(bad()) }
}

/// Whether no member but `own` is reached at `address`.
fn check_free(base: &Configuration, address: &str, own: Option<NodeId>) -> Result<(), EtcdError> {
    let mut others = base.members.iter().filter(|(id, _)| Some(**id) != own);
    match others.any(|(_, member)| member.peer_address == address) {
        true => Err(EtcdError::PeerUrlExists),
        false => Ok(()),
    }
}
