//! A gRPC server that answers every put at once: the most that any server of this kind could do here. It accepts
//! connections with the settings of the etcd door, on a runtime like that of a node, in a process of its own.

use crate::exit::{Failure, Outcome};
use hyper_util::service::TowerToHyperService;
use quorate_etcd::proto::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_etcd::proto::etcdserverpb::{PutRequest, PutResponse, ResponseHeader};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// Answers at once, with a header like that of a cluster in use.
#[derive(Clone, Copy, Debug)]
struct Echo;

#[tonic::async_trait]
impl Kv for Echo {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let put = request.into_inner();
        if put.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let header = ResponseHeader {
            cluster_id: 0x9f3a_51c2_77d0_1b64,
            member_id: 1,
            revision: 1_000_000,
            raft_term: 2,
        };
        Ok(Response::new(PutResponse { header: Some(header), ..PutResponse::default() }))
    }
}

/// `quorate bench echo-server`: prints its address on stdout and answers until stdin is closed, so that it
/// never outlives whoever started it.
pub(crate) fn serve() -> Outcome {
    let failed = |error: std::io::Error| Failure::Failed(format!("the echo server: {error}"));
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = crate::runtime().map_err(failed)?;
    runtime.block_on(accept()).map_err(failed)
}

async fn accept() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let builder = quorate_etcd::connection_builder();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let builder = builder.clone();
        tokio::spawn(async move {
            let service = TowerToHyperService::new(KvServer::new(Echo));
            // A client that goes away ends its connection with an error; there is nothing to do about it.
            let _ = builder.serve_connection(quorate_etcd::socket(stream), service).await;
        });
    }
}

/// The echo server as a child process; it ends when this is dropped.
pub(crate) struct EchoServer {
    /// The process.
    child: Child,
    /// Where it answers.
    address: String,
}

impl EchoServer {
    /// Starts it and waits for its address.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start() -> Result<EchoServer, Failure> {
        let failed = |text: String| Failure::Failed(format!("the echo server: {text}"));
        let binary = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(binary);
        command.args(["bench", "echo-server"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut address = String::new();
        let read = BufReader::new(stdout).read_line(&mut address);
        let address = address.trim().to_owned();
        let server = EchoServer { child, address };
        match read {
            Ok(_) if server.address.parse::<SocketAddr>().is_ok() => Ok(server),
            Ok(_) => Err(failed(format!("it said `{}` instead of an address", server.address))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
