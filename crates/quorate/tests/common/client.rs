//! A client of the etcd door that tries one endpoint after the other, as real ones do.

use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::{PutRequest, RangeRequest};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A blocking client.
pub(crate) struct Client {
    runtime: Runtime,
    members: Vec<KvClient<Channel>>,
}

impl Client {
    /// A client of these `host:port`.
    pub(crate) fn new(endpoints: &[String]) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let member = |address: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
            KvClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy())
        };
        let members = endpoints.iter().map(member).collect();
        drop(_inside);
        Client { runtime, members }
    }

    /// Puts a key through the first member that takes it; gives the revision.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        let begin = Instant::now();
        let mut last_error = None;
        while begin.elapsed() < super::PATIENCE {
            for member in 0..self.members.len() {
                match self.put_at(member, key, value, Duration::from_secs(2)) {
                    Ok(revision) => return revision,
                    Err(status) => last_error = Some(status),
                }
            }
        }
        panic!("no member takes {key}: {last_error:?}");
    }

    /// Puts a key through one member, once; without a timeout the member says when it gives up.
    pub(crate) fn put_at(
        &mut self,
        member: usize,
        key: &str,
        value: &str,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<i64, Status> {
        let message = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let mut request = Request::new(message);
        if let Some(timeout) = timeout.into() {
            request.set_timeout(timeout);
        }
        let response = self.runtime.block_on(self.members[member].put(request))?;
        Ok(response.into_inner().header.expect("every response has a header").revision)
    }

    /// Reads a key at one member; `serializable` from what it has.
    pub(crate) fn get_at(
        &mut self,
        member: usize,
        key: &str,
        serializable: bool,
    ) -> Result<Option<String>, Status> {
        let message =
            RangeRequest { key: key.to_owned().into(), serializable, ..RangeRequest::default() };
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(5));
        let response = self.runtime.block_on(self.members[member].range(request))?;
        let pairs = response.into_inner().kvs;
        Ok(pairs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()))
    }

    /// Reads all keys with a prefix at one member; gives them with their values, in order.
    pub(crate) fn get_all_at(
        &mut self,
        member: usize,
        prefix: &str,
    ) -> Result<Vec<(String, String)>, Status> {
        // The first key that no longer has the prefix.
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("the prefix has a byte") += 1;
        let message = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        let mut request = Request::new(message);
        request.set_timeout(Duration::from_secs(5));
        let response = self.runtime.block_on(self.members[member].range(request))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = response.into_inner().kvs;
        Ok(pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect())
    }
}
