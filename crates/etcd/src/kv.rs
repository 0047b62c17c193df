//! `etcdserverpb.KV`: reads, writes, transactions, compaction.

use crate::door::{Door, refused};
use crate::errors::EtcdError;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::request_op as op;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::replica::Replica;
use crate::translate;
use quorate_store::engine::Engine;
use quorate_store::etcd::{Command, Reply, check, check_range, check_txn};
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl<R: Replica, E: Engine> Kv for Door<R, E> {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        let message = request.into_inner();
        let serializable = message.serializable;
        let range = translate::range(message).map_err(EtcdError::status)?;
        check_range(&range).map_err(refused)?;
        self.barrier(serializable, timeout).await?;
        let reply = self.read(range).await?;
        Ok(Response::new(translate::range_response(reply, self.header())))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        let command = Command::Put(translate::put(request.into_inner()));
        let Reply::Put(reply) = self.agree(&command, timeout).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(translate::put_response(reply, self.header())))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        let command = Command::DeleteRange(translate::delete_range(request.into_inner()));
        let Reply::DeleteRange(reply) = self.agree(&command, timeout).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(translate::delete_range_response(reply, self.header())))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        let message = request.into_inner();
        let serializable = is_serializable(&message);
        let txn = translate::txn(message).map_err(EtcdError::status)?;
        if txn.is_read_only() {
            check_txn(&txn).map_err(refused)?;
            self.barrier(serializable, timeout).await?;
            let reply = self.read_txn(txn).await?;
            return Ok(Response::new(translate::txn_response(reply, self.header())));
        }
        let Reply::Txn(reply) = self.agree(&Command::Txn(txn), timeout).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(translate::txn_response(reply, self.header())))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let timeout = self.admit(request.metadata())?;
        let message = request.into_inner();
        let (physical, revision) = (message.physical, message.revision);
        let command = Command::Compact(translate::compaction(message));
        let begin = tokio::time::Instant::now();
        let Reply::Compact(reply) = self.agree(&command, timeout).await? else {
            return Err(mismatch());
        };
        if physical {
            self.swept(revision, timeout.map(|timeout| timeout.saturating_sub(begin.elapsed())))
                .await?;
        }
        Ok(Response::new(translate::compaction_response(reply, self.header())))
    }
}

impl<R: Replica, E: Engine> Door<R, E> {
    /// Refuses what can be refused without the store, and agrees on the rest.
    async fn agree(&self, command: &Command, timeout: Option<Duration>) -> Result<Reply, Status> {
        check(command).map_err(refused)?;
        self.propose(command, timeout).await
    }
}

/// Whether every operation of a transaction is content with this member's own state. One without operations asks
/// whether its comparisons hold, and is not.
fn is_serializable(message: &TxnRequest) -> bool {
    let mut ops = message.success.iter().chain(&message.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op| match &op.request {
            Some(op::Request::RequestRange(range)) => range.serializable,
            Some(
                op::Request::RequestPut(_)
                | op::Request::RequestDeleteRange(_)
                | op::Request::RequestTxn(_),
            )
            | None => false,
        })
}

/// A reply to another kind of command: the state machine broke its contract.
fn mismatch() -> Status {
    tracing::error!("a reply does not fit its request");
    EtcdError::Stopped.status()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::RequestOp;

    #[test]
    fn a_transaction_is_serializable_when_all_of_its_reads_are() {
        let read = |serializable| RequestOp {
            request: Some(op::Request::RequestRange(RangeRequest {
                serializable,
                ..RangeRequest::default()
            })),
        };
        let check = |success: Vec<RequestOp>, failure: Vec<RequestOp>, expected: bool| {
            let message = TxnRequest { compare: vec![], success, failure };
            assert_eq!(is_serializable(&message), expected, "{message:?}");
        };
        check(vec![read(true)], vec![read(true)], true);
        check(vec![read(true)], vec![read(false)], false);
        check(vec![read(false)], vec![], false);
        check(vec![], vec![], false);
    }
}
