//! `etcdserverpb.Cluster`: who takes part. Changing that is not offered yet.

use crate::door::Door;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use crate::replica::{Replica, SYSTEM_GROUP};
use quorate_store::engine::Engine;
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
}

impl<R: Replica, E: Engine> Door<R, E> {
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
