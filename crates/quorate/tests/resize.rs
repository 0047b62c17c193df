//! Three members become five and three again, and one of them is replaced, while clients write.
//!
//! A write may fail at the member that is being removed, from the moment that somebody asked for it: that member ends. There
//! its client goes on to another one. No other member may fail a write, and none may take longer than an election.
#![expect(clippy::print_stdout, reason = "a test shows its figures, which a failure is read with")]

use crate::common::{
    Client, Cluster, Finished, Newcomer, Node, PATIENCE, Pulse, finish, run, wait_for,
};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// How many write at once.
const WRITER_COUNT: usize = 4;

/// How many puts a writer sends to one member before it goes on to the next.
const TURN: usize = 20;

/// How many acknowledgements are waited for between two changes.
const SETTLED_COUNT: usize = 100;

/// How long one attempt may take: a member holds what it is given while another leader is elected.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What etcdctl says of a learner that has not caught up.
const NOT_READY: &str = "in sync with leader";

/// Far more than a write takes over an election, for machines that are busy.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// A run in which the machine itself stood still for longer shows nothing: those who wait have given up meanwhile.
const STILL_MAX: Duration = Duration::from_secs(1);

/// How often a run is made before a machine that stands still in each is taken for too slow.
const RUN_COUNT: usize = 3;

/// Who is told of a change.
#[derive(Clone, Copy, Debug)]
enum Tool {
    Etcdctl,
    Quorate,
}

/// One member.
struct Place {
    name: String,
    peer: String,
    endpoint: String,
    process: Node,
}

/// An attempt that failed.
#[derive(Debug)]
struct Failure {
    endpoint: String,
    ended: Instant,
    status: Status,
}

/// A member that was removed.
struct Gone {
    endpoint: String,
    /// When somebody asked for it.
    asked: Instant,
}

impl Gone {
    /// Whether this failure is one that its clients have to expect.
    fn explains(&self, failure: &Failure) -> bool {
        let is_here = self.endpoint == failure.endpoint && failure.ended >= self.asked;
        // A connection that is reset in the middle of an answer is "unknown" to the client's library.
        is_here && matches!(failure.status.code(), Code::Unavailable | Code::Unknown)
    }
}

/// What all writers share.
#[derive(Default)]
struct Shared {
    /// Where to write; none tells them to stop.
    endpoints: Mutex<Option<Vec<String>>>,
    /// What is done to the members meanwhile.
    step: Mutex<String>,
    acknowledged: AtomicUsize,
}

/// What one writer saw.
#[derive(Default)]
struct Seen {
    count: usize,
    longest: Duration,
    /// What was done to the members when the longest write ended.
    meanwhile: String,
    failures: Vec<Failure>,
}

fn key(writer: usize, count: usize) -> String {
    format!("writer/{writer}/{count:06}")
}

fn write(writer: usize, shared: &Shared) -> Seen {
    let (mut seen, mut known, mut client) = (Seen::default(), Vec::new(), Client::new(&[]));
    let mut member = writer * TURN;
    loop {
        let Some(endpoints) = shared.endpoints.lock().expect("no panic").clone() else {
            return seen;
        };
        if endpoints != known {
            client = Client::new(&endpoints);
            known = endpoints;
        }
        let begin = Instant::now();
        let (key, value) = (key(writer, seen.count), format!("value {}", seen.count));
        while let Err(status) = client.put_at(member / TURN % known.len(), &key, &value, ATTEMPT) {
            let endpoint = known[member / TURN % known.len()].clone();
            seen.failures.push(Failure { endpoint, ended: Instant::now(), status });
            assert!(begin.elapsed() < PATIENCE, "{key}: {:?}", seen.failures.last());
            member += TURN;
        }
        if begin.elapsed() > seen.longest {
            seen.longest = begin.elapsed();
            seen.meanwhile.clone_from(&shared.step.lock().expect("no panic"));
        }
        seen.count += 1;
        member += 1;
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// The members, and clients that write through all of them.
struct Load {
    cluster: Cluster,
    tool: Tool,
    places: Vec<Place>,
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Seen>>,
    gone: Vec<Gone>,
}

impl Load {
    fn begin(tool: Tool) -> Load {
        let mut cluster = Cluster::formed();
        let places = (0..3).map(|node| Place {
            name: Cluster::name(node),
            peer: format!("127.0.0.1:{}", cluster.peer_port(node)),
            endpoint: cluster.endpoint(node),
            process: cluster.nodes[node].take().expect("it was started"),
        });
        let places = places.collect();
        let shared = Arc::new(Shared::default());
        let mut load =
            Load { cluster, tool, places, shared, writers: Vec::new(), gone: Vec::new() };
        load.publish();
        for writer in 0..WRITER_COUNT {
            let shared = Arc::clone(&load.shared);
            load.writers.push(std::thread::spawn(move || write(writer, &shared)));
        }
        load.settle();
        load
    }

    /// Tells the writers of the members.
    fn publish(&self) {
        let endpoints = self.places.iter().map(|place| place.endpoint.clone()).collect();
        *self.shared.endpoints.lock().expect("no panic") = Some(endpoints);
    }

    /// Says what is done to the members.
    fn step(&self, what: String) {
        *self.shared.step.lock().expect("no panic") = what;
    }

    /// Waits until so many more writes were acknowledged.
    fn settle(&self) {
        let before = self.shared.acknowledged.load(Ordering::Relaxed);
        wait_for("writers to get on", || {
            let now = self.shared.acknowledged.load(Ordering::Relaxed);
            (now >= before + SETTLED_COUNT).then_some(())
        });
    }

    fn endpoints(&self) -> String {
        let endpoints = self.places.iter().map(|place| place.endpoint.as_str());
        endpoints.collect::<Vec<_>>().join(",")
    }

    /// Which of the members all of them follow.
    fn leader(&self) -> usize {
        wait_for("a leader that all follow", || {
            let said = run(&["status", "--json", "--endpoints", &self.endpoints()]);
            let reports: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
            let leader = |report: &serde_json::Value| {
                report.pointer("/status/groups/0/leader")?.as_str().map(str::to_owned)
            };
            let named: Option<Vec<String>> = reports.as_array()?.iter().map(leader).collect();
            let named = named?;
            let found = self.places.iter().position(|place| place.name == named[0])?;
            named.iter().all(|name| *name == named[0]).then_some(found)
        })
    }

    fn etcdctl(&self, arguments: &[&str]) -> Finished {
        let endpoints = self.endpoints();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--command-timeout", "30s"]);
        command.args(["--endpoints", &endpoints, "member"]);
        finish(command.args(arguments))
    }

    /// What a tool says to a change of members; `through` is whom our own command asks.
    fn member(&self, through: usize, arguments: &[&str]) -> Finished {
        let mut words = vec!["member", "--endpoint", &self.places[through].endpoint];
        words.extend(arguments);
        run(&words)
    }

    /// The id that etcdctl shows of the member with this peer address.
    fn id(&self, peer: &str) -> String {
        wait_for("the member in the list", || {
            let list = self.etcdctl(&["list"]).stdout;
            let line = list.lines().find(|line| line.contains(&format!("http://{peer},")))?;
            line.split_once(',').map(|(id, _)| id.to_owned())
        })
    }

    /// Adds a learner, starts it and promotes it.
    fn grow(&mut self, name: &str) {
        self.step(format!("{name} was added and promoted"));
        let new = Newcomer::new(&self.cluster, name);
        let added = match self.tool {
            Tool::Etcdctl => {
                let url = format!("--peer-urls=http://{}", new.peer);
                self.etcdctl(&["add", name, "--learner", &url])
            }
            Tool::Quorate => self.member(0, &["--wait", "0", "add", "--learner", &new.pair()]),
        };
        assert_eq!(added.code, Some(0), "{added:?}");
        let contact = self.places[0].peer.clone();
        let mut process = new.start_at(&mut self.cluster, &contact);
        process.wait_for_log("is joined");
        let (name, peer, endpoint) = (new.name, new.peer, new.endpoint);
        let promoted = match self.tool {
            // As people do: again, until the learner is ready.
            Tool::Etcdctl => {
                let id = self.id(&peer);
                wait_for("the promotion", || {
                    let promoted = self.etcdctl(&["promote", &id]);
                    (!promoted.stderr.contains(NOT_READY)).then_some(promoted)
                })
            }
            Tool::Quorate => self.member(0, &["promote", &name]),
        };
        assert_eq!(promoted.code, Some(0), "{promoted:?}");
        println!("{}", promoted.stdout.trim_end());
        self.places.push(Place { name, peer, endpoint, process });
        self.publish();
        self.settle();
    }

    /// Removes a member, which ends by itself.
    fn shrink(&mut self, place: usize) {
        self.step(format!("{} was removed", self.places[place].name));
        let through = (place + 1) % self.places.len();
        let (name, peer) = (&self.places[place].name, &self.places[place].peer);
        let id = self.id(peer);
        let asked = Instant::now();
        let removed = match self.tool {
            Tool::Etcdctl => self.etcdctl(&["remove", &id]),
            Tool::Quorate => self.member(through, &["remove", name]),
        };
        assert_eq!(removed.code, Some(0), "{removed:?}");
        println!("{}", removed.stdout.trim_end());
        self.leave(place, asked);
    }

    /// Puts a new member in the place of another by our own command.
    fn replace(&mut self, place: usize, name: &str) {
        self.step(format!("{} was replaced", self.places[place].name));
        let through = (place + 1) % self.places.len();
        let new = Newcomer::new(&self.cluster, name);
        let contact = self.places[through].peer.clone();
        let mut process = new.start_at(&mut self.cluster, &contact);
        process.wait_for_log("has no member");
        let old = self.places[place].name.clone();
        let asked = Instant::now();
        let replaced = self.member(through, &["replace", &old, "--with", &new.pair()]);
        assert_eq!(replaced.code, Some(0), "{replaced:?}\n{}", process.log());
        println!("{}", replaced.stdout.trim_end());
        let (name, peer, endpoint) = (new.name, new.peer, new.endpoint);
        self.places.push(Place { name, peer, endpoint, process });
        self.leave(place, asked);
    }

    /// Waits until a member that was removed has ended, and lets the writers know.
    fn leave(&mut self, place: usize, asked: Instant) {
        let mut place = self.places.remove(place);
        assert_eq!(place.process.wait(), Some(1));
        let log = place.process.log();
        assert!(log.contains("was removed from this cluster"), "{log}");
        self.gone.push(Gone { endpoint: place.endpoint, asked });
        self.publish();
        self.settle();
    }

    /// Stops the writers and judges what they saw. Gives whether that shows anything.
    fn end(mut self, pulse: &Pulse) -> bool {
        *self.shared.endpoints.lock().expect("no panic") = None;
        let writers = self.writers.drain(..);
        let seen: Vec<Seen> =
            writers.map(|writer| writer.join().expect("it does not panic")).collect();
        let longest = seen.iter().max_by_key(|seen| seen.longest).expect("several writers");
        let (longest, meanwhile) = (longest.longest, &longest.meanwhile);
        let count: usize = seen.iter().map(|seen| seen.count).sum();
        let failures: Vec<&Failure> = seen.iter().flat_map(|seen| &seen.failures).collect();
        let (expected, others): (Vec<&Failure>, Vec<&Failure>) = failures
            .iter()
            .partition(|failure| self.gone.iter().any(|gone| gone.explains(failure)));
        println!(
            "{count} puts of {WRITER_COUNT} writers, the longest {longest:?} while {meanwhile}; {} attempts failed at members that were \
             being removed, {} others",
            expected.len(),
            others.len()
        );
        let still = pulse.lateness();
        if still > STILL_MAX {
            println!("once more: the machine stood still for {still:?}");
            return false;
        }
        assert!(others.is_empty(), "{others:?}");
        assert!(longest <= WRITE_MAX, "a write took {longest:?}");
        for place in &self.places {
            let mut client = Client::new(std::slice::from_ref(&place.endpoint));
            for (writer, seen) in seen.iter().enumerate() {
                let found =
                    wait_for("a read", || client.get_all_at(0, &format!("writer/{writer}/")).ok());
                let expected = (0..seen.count).map(|n| (key(writer, n), format!("value {n}")));
                assert!(found.into_iter().eq(expected), "{} lacks a write", place.name);
            }
        }
        true
    }
}

fn three_five_three(tool: Tool) {
    let shows = (0..RUN_COUNT).any(|_| {
        let pulse = Pulse::begin();
        let mut load = Load::begin(tool);
        load.grow("n4");
        load.grow("n5");
        // Once who leads, once who does not.
        load.shrink(load.leader());
        load.shrink((load.leader() + 1) % load.places.len());
        load.replace(load.leader(), "n6");
        assert_eq!(load.places.len(), 3);
        load.end(&pulse)
    });
    assert!(shows, "the machine stood still in each of {RUN_COUNT} runs");
}

#[test]
fn three_become_five_and_three_again_under_load() {
    three_five_three(Tool::Quorate);
}

#[test]
fn three_become_five_and_three_again_under_load_by_etcdctl() {
    let usage =
        Command::new("etcdctl").env("ETCDCTL_API", "3").args(["member", "add", "-h"]).output();
    let Ok(usage) = usage else {
        println!("skipped: etcdctl is not installed");
        return;
    };
    if !String::from_utf8_lossy(&usage.stdout).contains("--learner") {
        println!("skipped: this etcdctl knows no learners; 3.4 and newer do");
        return;
    }
    three_five_three(Tool::Etcdctl);
}
