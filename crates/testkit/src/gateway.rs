//! A whole gateway in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Address, Source};
use proxy::Node;

use crate::Folder;

/// Stops when dropped. Its methods block: not for the inside of an async runtime.
pub struct Gateway {
    node: Option<Node>,
    /// Kept so that limits and certificates are read as in the first document.
    base: PathBuf,
}

impl Gateway {
    /// From a document; `version`, two workers and a listener `web` on a free port are added where it has none.
    #[track_caller]
    pub fn start(yaml: &str) -> Gateway {
        Gateway::start_in(&Folder::new(), yaml)
    }

    /// With files beside the document.
    #[track_caller]
    pub fn start_in(folder: &Folder, yaml: &str) -> Gateway {
        let snapshot = compile(folder.disk().base, yaml, None).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")));
        let node = Node::start(snapshot).unwrap_or_else(|problems| panic!("{problems:?}"));
        Gateway { node: Some(node), base: folder.base().to_owned() }
    }

    #[track_caller]
    pub fn apply(&mut self, yaml: &str) {
        self.try_apply(yaml).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")));
    }

    /// What the document or the machine had against it.
    pub fn try_apply(&mut self, yaml: &str) -> Result<(), Vec<String>> {
        let node = self.node.as_mut().unwrap();
        let snapshot = compile(self.base.clone(), yaml, Some(node.snapshot()))?;
        node.apply(snapshot)
            .map_err(|problems| problems.into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect())
    }

    /// Where the named listener is.
    #[track_caller]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let addresses = self.node().addresses();
        let found = addresses.iter().find(|(name, _)| &**name == listener);
        match found {
            Some((_, Address::Ip(address))) => *address,
            other => panic!("no IP listener `{listener}`: {other:?}"),
        }
    }

    /// Of the listener `web`.
    pub fn web(&self) -> SocketAddr {
        self.address("web")
    }

    /// Of the listener `web`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.web())
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    /// True if nothing had to be cut.
    pub fn stop(mut self, patience: Duration) -> bool {
        self.node.take().unwrap().stop(patience)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop(Duration::from_millis(200));
        }
    }
}

fn compile(
    base: PathBuf,
    yaml: &str,
    previous: Option<&Arc<config::Snapshot>>,
) -> Result<Arc<config::Snapshot>, Vec<String>> {
    let mut text = String::new();
    for (key, default) in [
        ("version:", "version: 1\n"),
        ("node:", "node: { workers: 2 }\n"),
        ("listeners:", "listeners: { web: { address: '127.0.0.1:0' } }\n"),
    ] {
        if !yaml.lines().any(|line| line.starts_with(key)) {
            text.push_str(default);
        }
    }
    text.push_str(yaml);
    let source = Source::new("test.yaml", text);
    match config::compile(&source, &config::Disk { base }, previous.map(|it| &**it)) {
        Ok((snapshot, _)) => Ok(Arc::new(snapshot)),
        Err(wrong) => Err(wrong.into_iter().map(|it| format!("{}: {}", it.path, it.message)).collect()),
    }
}
