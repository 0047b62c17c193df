//! `quorate status`: what each node says of itself, as a table or as JSON. It asks every node by itself, so it
//! answers without a quorum too.

mod table;

use crate::admin::{NodeReport, STATUS_PATH};
use crate::config::{self, StatusSettings};
use crate::exit::{Failure, Outcome, show};
use crate::http;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// What one endpoint said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EndpointReport {
    /// Whom was asked.
    pub(crate) endpoint: String,
    /// Why there is no status.
    pub(crate) error: Option<String>,
    /// The status.
    pub(crate) status: Option<NodeReport>,
}

/// Asks all endpoints and prints what they say.
///
/// # Errors
/// `Reported` when an endpoint did not answer.
pub(crate) fn run(given: &StatusSettings, file: Option<&Path>) -> Outcome {
    let settings = config::merged(given, file)?;
    let endpoints = parse(settings.endpoints.as_deref().unwrap_or_default())?;
    let patience = Duration::from_secs(settings.timeout.unwrap_or(3).max(1).into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let reports = runtime.block_on(ask_all(&endpoints, patience));
    if settings.json.unwrap_or(false) {
        let text = serde_json::to_string_pretty(&reports);
        let text = text.map_err(|error| Failure::Failed(format!("cannot print: {error}")))?;
        show(&text);
    } else {
        show(&table::render(&reports));
    }
    match reports.iter().all(|report| report.status.is_some()) {
        true => Ok(()),
        false => Err(Failure::Reported),
    }
}

/// The `host:port` of each endpoint.
fn parse(text: &str) -> Result<Vec<String>, Failure> {
    let mut endpoints = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = part.strip_prefix("http://").unwrap_or(part).trim_end_matches('/');
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() || address.contains('/') {
            return Err(Failure::Usage(format!("--endpoints: `{part}` is not HOST:PORT")));
        }
        endpoints.push(address.to_owned());
    }
    match endpoints.is_empty() {
        true => Err(Failure::Usage("--endpoints names nobody to ask".into())),
        false => Ok(endpoints),
    }
}

async fn ask_all(endpoints: &[String], patience: Duration) -> Vec<EndpointReport> {
    let mut asked = JoinSet::new();
    for (number, endpoint) in endpoints.iter().cloned().enumerate() {
        asked.spawn(async move { (number, ask(endpoint, patience).await) });
    }
    let mut reports = asked.join_all().await;
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}

async fn ask(endpoint: String, patience: Duration) -> EndpointReport {
    let status = match http::get(&endpoint, STATUS_PATH, patience).await {
        Err(error) => Err(error),
        Ok((200, body)) => serde_json::from_str(&body)
            .map_err(|error| format!("what answers there is no Quorate of this version: {error}")),
        Ok((code, _)) => Err(format!("what answers there is no Quorate: HTTP {code}")),
    };
    match status {
        Ok(status) => EndpointReport { endpoint, error: None, status: Some(status) },
        Err(error) => EndpointReport { endpoint, error: Some(error), status: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_may_be_urls() {
        let check = |text, expected: Option<&[&str]>| {
            let parsed = parse(text).ok();
            assert_eq!(
                parsed.as_deref().map(|found| found.iter().map(String::as_str).collect()),
                expected.map(<[&str]>::to_vec),
                "{text}"
            );
        };
        check("127.0.0.1:2379,http://n2:2379/", Some(&["127.0.0.1:2379", "n2:2379"]));
        check("n1", None);
        check("http://n1:2379/path", None);
        check("", None);
    }
}
