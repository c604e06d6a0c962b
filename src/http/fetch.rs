//! Pictures from addresses: only from hosts that the operator allows, and only from where those are meant to be.
//!
//! A server that fetches what strangers name can be sent to look at what is behind it. So a host must be listed, its
//! addresses are checked where they are connected to, so that the name cannot mean another one by then, and each
//! redirect is a new address like any other. Bytes, redirects, time and fetches at a time are limited; the process's
//! proxies are not used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Uri;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::Edge;
use super::entrance::Asked;
use super::hosts::{Host, allowed};
use super::problem::Problem;
use super::wire::Item;
use crate::pipeline::ImageSource;
use crate::pipeline::embed::Input;
use crate::pipeline::error::{Error, Part};

/// Fetches at a time.
const FETCHES: usize = 16;

const REDIRECTS: u32 = 3;

/// Longest time of one fetch, redirects included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds addresses for the agent, and gives it none that it must not connect to.
#[derive(Debug)]
struct Guard {
    hosts: Vec<Host>,
    system: DefaultResolver,
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let refused = |why: &str| ureq::Error::Other(why.into());
        let host = allowed(&self.hosts, uri).map_err(refused)?;
        let mut left = self.empty();
        for address in &*self.system.resolve(uri, config, timeout)? {
            if host.may_be_at(address.ip()) {
                left.push(*address);
            }
        }
        if left.is_empty() {
            return Err(refused("the host has no address that pictures are fetched from"));
        }
        Ok(left)
    }
}

pub(super) struct Fetcher {
    hosts: Vec<Host>,
    agent: Agent,
    permits: Arc<Semaphore>,
    max_bytes: u64,
}

impl Fetcher {
    /// `None`: no host is allowed.
    pub(super) fn new(hosts: Vec<Host>, max_bytes: u64) -> Option<Fetcher> {
        if hosts.is_empty() {
            return None;
        }
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(REDIRECTS)
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("clipd/", env!("CARGO_PKG_VERSION")))
            .build();
        let guard = Guard { hosts: hosts.clone(), system: DefaultResolver::default() };
        let agent = Agent::with_parts(config, DefaultConnector::default(), guard);
        Some(Fetcher { hosts, agent, permits: Arc::new(Semaphore::new(FETCHES)), max_bytes })
    }

    /// The file at an address; an error is for the client.
    async fn fetch(&self, address: &str) -> Result<Bytes, String> {
        let uri: Uri = address.trim().parse().map_err(|_| "not an address".to_owned())?;
        allowed(&self.hosts, &uri)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let (agent, limit) = (self.agent.clone(), self.max_bytes);
        let fetched = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut response = agent.get(uri).call().map_err(|error| format!("not fetched: {error}"))?;
            let body = response.body_mut().with_config().limit(limit).read_to_vec();
            body.map_err(|error| format!("not fetched: {error}"))
        });
        Ok(fetched.await.map_err(|error| error.to_string())??.into())
    }
}

impl Edge {
    /// What to embed, fetched where it is elsewhere.
    pub(super) async fn inputs(
        &self,
        items: impl IntoIterator<Item = Item<'_>>,
        asked: &Asked,
    ) -> Result<Vec<Input>, Problem> {
        let items: Vec<Item<'_>> = items.into_iter().collect();
        asked.admitted.take_rows(items.len()).map_err(|refusal| Problem::refused(&refusal))?;
        try_join_all(items.into_iter().map(|item| self.input(item, asked))).await
    }

    pub(super) async fn input(&self, item: Item<'_>, asked: &Asked) -> Result<Input, Problem> {
        let (Some(fetcher), Item::Image(address)) = (&self.fetcher, &item) else { return Ok(item.input()) };
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme.trim_start());
        if !["http", "https"].iter().any(|each| scheme.eq_ignore_ascii_case(each)) {
            return Ok(item.input());
        }
        let fetched = asked.admitted.stage("fetch", fetcher.fetch(address));
        let fetched = match self.door.clock().instant(asked.deadline.reply_by) {
            Some(end) => timeout_at(end.into(), fetched).await,
            // Beyond what the platform's clock can say.
            None => Ok(fetched.await),
        };
        match fetched.map_err(|_| Problem::of(&Error::DeadlineExceeded, ""))? {
            Ok(file) => {
                asked.admitted.hold_request(file.len()).map_err(|refusal| Problem::refused(&refusal))?;
                Ok(Input::Image(ImageSource::Encoded(file)))
            }
            Err(message) => Ok(Input::Wrong(Part::Encoded, message)),
        }
    }
}
