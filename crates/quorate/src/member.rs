//! `quorate member`: who takes part, and changing it. The cluster plans the steps; this command asks, and shows them
//! until they are done. If it ends before, the change goes on.

use crate::admin::{Change, MEMBERS_PATH, MembersReport};
use crate::config::{self, MemberSettings};
use crate::exit::{Failure, Outcome, show};
use crate::http;
use crate::server_config::{address_fault, check_address, check_name};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(12);

/// How often the members are asked for while a change is under way.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What `quorate member` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Whom to ask.
    #[command(flatten)]
    settings: MemberSettings,
    /// What to do.
    #[command(subcommand)]
    action: Action,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Prints the members
    List,
    /// Adds a member, which then starts with `quorate start --join`
    Add {
        /// Its name and where peers reach it
        #[arg(value_name = "NAME=HOST:PORT")]
        member: String,
        /// Let it receive the log without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Gives a learner a vote
    Promote {
        /// Its name
        name: String,
    },
    /// Removes a member
    Remove {
        /// Its name
        name: String,
    },
    /// Puts a new member in the place of another, which leaves once the new one has the log
    Replace {
        /// Who leaves
        name: String,
        /// Who comes, and where peers reach it
        #[arg(long, value_name = "NAME=HOST:PORT")]
        with: String,
    },
}

/// Does it.
///
/// # Errors
/// `Usage` for a member that is none, `Failed` when the cluster declines or does not come to an end in time.
pub(crate) fn run(arguments: &Arguments, file: Option<&Path>) -> Outcome {
    let settings = config::merged(&arguments.settings, file)?;
    let endpoint = settings.endpoint.unwrap_or_default();
    let endpoint = endpoint.strip_prefix("http://").unwrap_or(&endpoint).trim_end_matches('/');
    check_address("endpoint", endpoint, false)?;
    let wait = Duration::from_secs(settings.wait.unwrap_or(60).into());
    let change = change_of(&arguments.action)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match change {
            None => {
                show(&table(&ask(endpoint, None).await?));
                Ok(())
            }
            Some(change) => carry_out(endpoint, &change, wait).await,
        }
    })
}

fn change_of(action: &Action) -> Result<Option<Change>, Failure> {
    Ok(Some(match action {
        Action::List => return Ok(None),
        Action::Add { member, learner } => {
            let (name, address) = newcomer(member)?;
            Change::Add { name, address, learner: *learner }
        }
        Action::Promote { name } => Change::Promote { name: name.clone() },
        Action::Remove { name } => Change::Remove { name: name.clone() },
        Action::Replace { name, with } => {
            let (with, address) = newcomer(with)?;
            Change::Replace { name: name.clone(), with, address }
        }
    }))
}

fn newcomer(text: &str) -> Result<(String, String), Failure> {
    let Some((name, address)) = text.split_once('=') else {
        return Err(Failure::Usage(format!("`{text}` is not NAME=HOST:PORT")));
    };
    check_name(name)?;
    if let Some(why) = address_fault(address, false) {
        return Err(Failure::Usage(format!("`{text}` is not NAME=HOST:PORT: {why}")));
    }
    Ok((name.to_owned(), address.to_owned()))
}

/// Asks for the members, or for a change of them.
async fn ask(endpoint: &str, change: Option<&Change>) -> Result<MembersReport, Failure> {
    let failed = |error: String| Failure::Failed(format!("{endpoint}: {error}"));
    let answer = match change {
        None => http::get(endpoint, MEMBERS_PATH, PATIENCE).await,
        Some(change) => {
            let json = serde_json::to_string(change).map_err(|error| failed(error.to_string()))?;
            http::post(endpoint, MEMBERS_PATH, json, PATIENCE).await
        }
    };
    let (code, body) = answer.map_err(failed)?;
    match code {
        200 => serde_json::from_str(&body).map_err(|error| {
            failed(format!("what answers there is no Quorate of this version: {error}"))
        }),
        409 | 503 => Err(failed(body)),
        code => Err(failed(format!("HTTP {code}: {body}"))),
    }
}

/// Asks for a change, and shows each step of it until it is done.
async fn carry_out(endpoint: &str, change: &Change, wait: Duration) -> Outcome {
    let mut report = ask(endpoint, Some(change)).await?;
    let mut shown = steps(&report);
    show(&shown);
    let due = Instant::now() + wait;
    // What was asked at a follower may not have come back to it yet.
    let mut is_seen = report.changing;
    let settle = Instant::now() + POLL_INTERVAL * 5;
    while report.changing || !is_seen && Instant::now() < settle {
        if Instant::now() >= due {
            return match wait.is_zero() {
                true => Ok(()),
                false => Err(Failure::Failed(format!(
                    "not done within {} s; the change goes on without this command",
                    wait.as_secs()
                ))),
            };
        }
        sleep(POLL_INTERVAL).await;
        // The member that is asked may be the one that leaves.
        if let Ok(now) = ask(endpoint, None).await {
            report = now;
        }
        is_seen |= report.changing;
        let now = steps(&report);
        if now != shown {
            show(&now);
            shown = now;
        }
    }
    show("done");
    Ok(())
}

/// The members in one line.
fn steps(report: &MembersReport) -> String {
    let members = report.members.iter();
    let members = members.map(|member| match member.role.as_str() {
        "voter" => member.name.clone(),
        role => format!("{} ({role})", member.name),
    });
    members.collect::<Vec<_>>().join(", ")
}

/// The members as a table.
fn table(report: &MembersReport) -> String {
    let mut text =
        format!("{:<6} {:<12} {:<22} {:<22} FOLDER\n", "ID", "NAME", "PEER ADDRESS", "ROLE");
    for member in &report.members {
        let folder = member.incarnation.as_deref().unwrap_or("has not joined");
        let (node, name) = (member.node, &member.name);
        let (address, role) = (&member.address, &member.role);
        // Writing to a string never fails.
        let _ = writeln!(text, "{node:<6} {name:<12} {address:<22} {role:<22} {folder}");
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_is_a_name_and_an_address_and_what_is_wrong_with_it_is_said() {
        let pair = newcomer("n4=10.0.0.4:2380").expect("a good one");
        assert_eq!(pair, ("n4".to_owned(), "10.0.0.4:2380".to_owned()));
        let check = |text: &str, expected: &str| match newcomer(text) {
            Err(Failure::Usage(said)) => assert_eq!(said, expected),
            other => panic!("{text}: {other:?}"),
        };
        check("n4", "`n4` is not NAME=HOST:PORT");
        check("n4=foo", "`n4=foo` is not NAME=HOST:PORT: there is no port");
        check("n4=h:0", "`n4=h:0` is not NAME=HOST:PORT: peers cannot find port 0");
        check("n4=:1", "`n4=:1` is not NAME=HOST:PORT: that is no host");
    }
}
