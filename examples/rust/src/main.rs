//! Reads and watches a node, holds a lock and stands for election, until the node says "stop".
//!
//!     PROTOS=$(zkside protos) cargo run -- /run/zkside/zkside.sock my-name
//!
//! The node is /clients/config, the lock /clients/lock, the election /clients/election.

use std::error::Error;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::Streaming;
use tower::service_fn;

use zkside::election_service_client::ElectionServiceClient;
use zkside::hold_service_client::HoldServiceClient;
use zkside::lock_service_client::LockServiceClient;
use zkside::node_service_client::NodeServiceClient;
use zkside::watch_response::Message;
use zkside::watch_service_client::WatchServiceClient;
use zkside::{
    AcquireRequest, CampaignRequest, GetRequest, Hold, HoldState, HoldUpdate, LockMode,
    ReleaseRequest, Scope, WatchRequest, WatchTarget,
};

mod zkside {
    tonic::include_proto!("zkside.v1");
}

/// Over a Unix socket; the URI is only for the form.
async fn connect(path: String) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://localhost")
        .connect_with_connector(service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
}

/// Waits until it is held. Work that relies on it goes on reading: it stops at JEOPARDY, or when the lease in the update
/// has passed, and hands the fencing token to what it protects. A hold lives as long as its stream.
async fn held(what: &str, stream: &mut Streaming<HoldUpdate>) -> Result<Hold, Box<dyn Error>> {
    while let Some(update) = stream.message().await? {
        match update.state() {
            HoldState::Held => {
                let hold = update.hold.ok_or("an update without a hold")?;
                println!("{what} {}", hold.fencing_token);
                return Ok(hold);
            }
            HoldState::Lost => return Err(format!("{what}: lost, {}", update.reason).into()),
            _ => {}
        }
    }
    Err(format!("{what}: ended").into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("the address is missing")?;
    let name = arguments.next().ok_or("the name is missing")?;
    let channel = connect(address.trim_start_matches("unix:").to_owned()).await?;

    let request = GetRequest { path: "/clients/config".into(), ..Default::default() };
    let answer = NodeServiceClient::new(channel.clone()).get(request).await?.into_inner();
    let node = answer.node.ok_or("an answer without a node")?;
    println!("read {}", String::from_utf8_lossy(&node.data));

    let request = AcquireRequest {
        path: "/clients/lock".into(),
        mode: LockMode::Exclusive.into(),
        owner: name.clone(),
        ..Default::default()
    };
    let mut acquire = LockServiceClient::new(channel.clone()).acquire(request).await?.into_inner();
    let lock = held("lock", &mut acquire).await?;

    let request = CampaignRequest {
        path: "/clients/election".into(),
        candidate_id: name,
        ..Default::default()
    };
    let mut campaign = ElectionServiceClient::new(channel.clone()).campaign(request).await?.into_inner();
    held("leader", &mut campaign).await?;

    let target = WatchTarget {
        path: "/clients/config".into(),
        scope: Scope::Node.into(),
        with_data: true,
        ..Default::default()
    };
    let request = WatchRequest { targets: vec![target], ..Default::default() };
    let mut watch = WatchServiceClient::new(channel.clone()).watch(request).await?.into_inner();
    while let Some(response) = watch.message().await? {
        let nodes = match response.message {
            Some(Message::Snapshot(snapshot)) => snapshot.nodes,
            Some(Message::Changes(changes)) => changes.changes.into_iter().filter_map(|one| one.node).collect(),
            _ => vec![],
        };
        for node in nodes {
            println!("watch {}", String::from_utf8_lossy(&node.data));
            if node.data == b"stop" {
                let request = ReleaseRequest { hold_id: lock.hold_id };
                HoldServiceClient::new(channel).release(request).await?;
                println!("released");
                return Ok(());
            }
        }
    }
    Err("the watch ended".into())
}
