//! `etcdserverpb.Maintenance`: what operators ask of one member.

use crate::door::{Door, ETCD_VERSION};
use crate::errors::EtcdError;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DowngradeInfo, StatusRequest, StatusResponse,
};
use crate::replica::{Replica, SYSTEM_GROUP};
use quorate_store::engine::Engine;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl<R: Replica, E: Engine> Maintenance for Door<R, E> {
    /// No alarm is ever raised yet, so the list is empty; raising or clearing one is not offered.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        self.admit(request.metadata())?;
        match AlarmAction::try_from(request.get_ref().action) {
            Ok(AlarmAction::Get) => {
                let header = self.header().at(self.reader().revision().0);
                Ok(Response::new(AlarmResponse { header, alarms: Vec::new() }))
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => {
                Err(Status::unimplemented("alarms cannot be set or cleared"))
            }
        }
    }

    /// Answers without a quorum.
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let status = self.replica().status();
        let group = status.groups.get(&SYSTEM_GROUP);
        let leader = self.replica().leader().map_or(0, |leader| leader.0);
        let size = i64::try_from(self.reader().size()).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if leader == 0 {
            errors.push(EtcdError::NoLeader.text().to_string());
        }
        Ok(Response::new(StatusResponse {
            header: self.header().at(self.reader().revision().0),
            version: ETCD_VERSION.into(),
            db_size: size,
            leader,
            raft_index: group.map_or(0, |group| group.committed.0),
            raft_term: self.replica().term(),
            raft_applied_index: self.reader().applied().position.index.0,
            errors,
            db_size_in_use: size,
            is_learner: self.is_learner(),
            storage_version: ETCD_VERSION.into(),
            db_size_quota: 0,
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }
}
