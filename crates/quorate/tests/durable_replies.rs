//! No reply before its entry is synced on a quorum: shown by what the kernel was asked, not by what we say of ourselves.
//!
//! Each node runs under `strace`, which stamps every write and sync of its files with the wall clock. Each put carries
//! a mark, so that a trace tells which write of the log held it and which sync of that file came after. Between the
//! client's stamps around the put, such a sync must have returned on two nodes.

use crate::common::{Cluster, plain, wait_for};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many puts are judged.
const PUT_COUNT: usize = 1_000;

/// How many puts may fail, by an election that slow syncs brought about.
const FAILURES_MAX: usize = 50;

/// What begins a mark; its number follows in [`MARK_DIGITS`] digits.
const MARK: &str = "mark-";

/// Decimal digits of a mark's number.
const MARK_DIGITS: usize = 6;

/// Microseconds since 1970, by the clock that `strace -ttt` shows.
type Stamp = u64;

/// One acknowledged put.
#[derive(Clone, Copy, Debug)]
struct Put {
    /// Which mark it carried.
    mark: u32,
    /// Before it was sent.
    sent: Stamp,
    /// After its reply.
    replied: Stamp,
}

/// When a mark came to one node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Durable {
    /// When the write that held it began.
    written: Stamp,
    /// When the first sync begun after that write returned.
    synced: Stamp,
}

fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is long after 1970");
    u64::try_from(since.as_micros()).expect("64 bits are enough")
}

/// A system call under way, by the thread that made it.
#[derive(Clone, Debug)]
struct Call {
    begun: Stamp,
    path: String,
    /// The marks that it writes; of a sync, what was written to the file before it began.
    marks: Vec<(u32, Stamp)>,
    is_sync: bool,
}

/// What one node's trace says of each mark.
#[derive(Debug, Default)]
struct Trace {
    durable: BTreeMap<u32, Durable>,
    /// Marks written to each file and not yet synced, with the beginning of their write.
    written: BTreeMap<String, Vec<(u32, Stamp)>>,
    /// Calls that another thread's call interrupted in the trace.
    unfinished: BTreeMap<String, Call>,
}

impl Trace {
    fn parse(text: &str) -> Trace {
        let mut trace = Trace::default();
        for line in text.lines() {
            // Process ids of few digits are padded.
            let parts = line.split_once(' ').and_then(|(thread, rest)| {
                let (stamp, what) = rest.trim_start().split_once(' ')?;
                Some((thread, stamp, what))
            });
            let Some((thread, stamp, what)) = parts else { continue };
            if let Some(stamp) = parse_seconds(stamp) {
                trace.take(thread, stamp, what.trim_start());
            }
        }
        trace
    }

    fn take(&mut self, thread: &str, stamp: Stamp, what: &str) {
        if what.starts_with("<... ") {
            if let Some(call) = self.unfinished.remove(thread) {
                self.end(&call, stamp, what);
            }
            return;
        }
        let Some(call) = self.begin(stamp, what) else { return };
        if what.ends_with("<unfinished ...>") {
            self.unfinished.insert(thread.to_owned(), call);
        } else if let Some(took) =
            what.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>'))
        {
            let returned = stamp + parse_seconds(took).expect("strace -T ends with the duration");
            self.end(&call, returned, what);
        }
    }

    /// A write or sync of a file of the log; none for any other call.
    fn begin(&self, begun: Stamp, what: &str) -> Option<Call> {
        let (name, arguments) = what.split_once('(')?;
        let is_sync = match name {
            "fdatasync" | "fsync" => true,
            "pwrite64" => false,
            _ => return None,
        };
        let path = arguments.split_once('<')?.1.split_once('>')?.0.to_owned();
        if !path.contains("/log/") || !path.ends_with(".seg") {
            return None;
        }
        let marks = match is_sync {
            true => self.written.get(&path).cloned().unwrap_or_default(),
            false => marks_in(arguments).map(|mark| (mark, begun)).collect(),
        };
        Some(Call { begun, path, marks, is_sync })
    }

    fn end(&mut self, call: &Call, returned: Stamp, what: &str) {
        let result = what.rsplit_once(" = ").map_or("", |(_, result)| result);
        if result.starts_with('-') {
            return;
        }
        assert!(call.begun <= returned, "{what} ended before it began");
        let written = self.written.entry(call.path.clone()).or_default();
        if !call.is_sync {
            written.extend(&call.marks);
            return;
        }
        written.retain(|mark| !call.marks.contains(mark));
        for (mark, written) in &call.marks {
            let durable = Durable { written: *written, synced: returned };
            self.durable.entry(*mark).or_insert(durable);
        }
    }
}

/// `1795423877.568877` in microseconds.
fn parse_seconds(text: &str) -> Option<Stamp> {
    let (seconds, micros) = text.split_once('.')?;
    let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
    Some(seconds * 1_000_000 + micros)
}

/// The numbers of all marks in what was written.
fn marks_in(text: &str) -> impl Iterator<Item = u32> {
    text.match_indices(MARK).filter_map(|(at, _)| {
        let at = at + MARK.len();
        text.get(at..at + MARK_DIGITS)?.parse().ok()
    })
}

/// Judges each put: on how many nodes it was synced between its request and its reply. Gives for each put the time left
/// between the second node's sync and the reply.
fn judge(puts: &[Put], traces: &[Trace]) -> Result<Vec<Duration>, String> {
    let mut left = Vec::new();
    for put in puts {
        let found: Vec<Option<&Durable>> =
            traces.iter().map(|trace| trace.durable.get(&put.mark)).collect();
        let in_time =
            |durable: &&Durable| put.sent <= durable.written && durable.synced <= put.replied;
        let mut syncs: Vec<Stamp> =
            found.iter().flatten().copied().filter(in_time).map(|durable| durable.synced).collect();
        syncs.sort_unstable();
        let Some(second) = syncs.get(1) else {
            return Err(format!("{put:?} was synced in time on {} nodes: {found:?}", syncs.len()));
        };
        left.push(Duration::from_micros(put.replied - second));
    }
    Ok(left)
}

/// A command under `strace`, which writes to `file` and is no parent of it: a signal to the child reaches the command.
fn traced(file: &Path) -> Command {
    let mut command = plain(Command::new("strace"));
    command.args(["-D", "-f", "--seccomp-bpf", "-y", "-ttt", "-T", "-s", "1000000", "-q"]);
    command.args(["-e", "trace=pwrite64,fdatasync,fsync", "-e", "signal=kill", "-o"]).arg(file);
    command
}

/// Why nothing can be traced here.
fn cannot_trace(scratch: &Path) -> Option<String> {
    // As a parent: a tracer that is none leaves the command stopped where tracing is not permitted.
    let mut command = plain(Command::new("strace"));
    command.args(["-f", "--seccomp-bpf", "-o"]).arg(scratch.join("probe.trace")).arg("true");
    let probe = command.output();
    match probe {
        Err(error) => Some(format!("strace cannot be started: {error}")),
        Ok(output) if !output.status.success() => {
            Some(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
        Ok(_) => None,
    }
}

/// The trace of a process that was killed, once it is complete.
fn complete_trace(file: &Path, process: u32) -> Trace {
    let text = wait_for(&format!("the end of {}", file.display()), || {
        let text = std::fs::read_to_string(file).ok()?;
        let ended = |line: &str| {
            line.starts_with(&format!("{process} ")) && line.contains("+++ killed by SIGKILL")
        };
        text.lines().any(ended).then_some(text)
    });
    Trace::parse(&text)
}

#[test]
fn a_log_sync_on_two_nodes_returned_before_each_of_1000_replies() {
    let mut cluster = Cluster::new();
    if let Some(reason) = cannot_trace(cluster.scratch()) {
        println!("skipped: processes cannot be traced here: {reason}");
        return;
    }
    let files: Vec<PathBuf> =
        (0..3).map(|node| cluster.scratch().join(format!("{node}.trace"))).collect();
    for (node, file) in files.iter().enumerate() {
        let mut command = traced(file);
        command.arg(env!("CARGO_BIN_EXE_quorate"));
        cluster.launch(node, command);
    }
    let leader = cluster.leader();
    let mut client = cluster.client();
    let (mut puts, mut failures) = (Vec::new(), 0);
    for mark in 0.. {
        if puts.len() == PUT_COUNT {
            break;
        }
        // Through the leader and through those who forward to it.
        let member = (leader + puts.len()) % 3;
        let value = format!("{MARK}{mark:0MARK_DIGITS$}");
        let sent = now();
        let result = client.put_at(member, "traced", &value, Duration::from_secs(10));
        let replied = now();
        match result {
            Ok(_) => puts.push(Put { mark, sent, replied }),
            Err(_) if failures < FAILURES_MAX => failures += 1,
            Err(status) => panic!("{failures} puts failed before this one: {status:?}"),
        }
    }
    let processes: Vec<u32> = (0..3).map(|node| cluster.node(node).process()).collect();
    (0..3).for_each(|node| cluster.kill(node));
    let ended = files.iter().zip(processes);
    let traces: Vec<Trace> = ended.map(|(file, process)| complete_trace(file, process)).collect();
    let mut left = judge(&puts, &traces).unwrap_or_else(|error| panic!("{error}"));
    left.sort_unstable();
    let took: Duration = puts.iter().map(|put| Duration::from_micros(put.replied - put.sent)).sum();
    println!(
        "each of {PUT_COUNT} puts ({failures} failed, mean {:?}) was synced on two nodes before its reply: \
         {:?} before it at least, {:?} in the median",
        took / u32::try_from(PUT_COUNT).expect("few"),
        left[0],
        left[PUT_COUNT / 2],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 3] = [
        "7     100.000010 pwrite64(9</d/n1/log/1.seg>, \"\\0mark-000001ab\", 512, 0) = 512 <0.000005>\n\
         7 100.000020 fdatasync(9</d/n1/log/1.seg>) = 0 <0.000030>\n",
        "7 100.000020 pwrite64(9</d/n2/log/1.seg>, \"mark-000001\", 512, 0 <unfinished ...>\n\
         8 100.000021 fsync(4</d/n2/engine/x>) = 0 <0.000001>\n\
         7 100.000025 <... pwrite64 resumed>) = 512 <0.000005>\n\
         7 100.000030 fdatasync(9</d/n2/log/1.seg> <unfinished ...>\n\
         8 100.000040 fsync(4</d/n2/engine/x>) = 0 <0.000001>\n\
         7 100.000060 <... fdatasync resumed>) = 0 <0.000030>\n",
        "",
    ];

    /// Judges one put that was sent at 100.000001 and answered at 100.000070 s.
    fn verdict(traces: &[String]) -> Result<Vec<Duration>, String> {
        let put = Put { mark: 1, sent: 100_000_001, replied: 100_000_070 };
        let traces: Vec<Trace> = traces.iter().map(|text| Trace::parse(text)).collect();
        judge(&[put], &traces)
    }

    fn changed(from: &str, to: &str) -> Vec<String> {
        let traces: Vec<String> = GOOD.iter().map(|text| text.replacen(from, to, 1)).collect();
        assert_ne!(traces, GOOD, "`{from}` is in one of them");
        traces
    }

    #[test]
    fn a_put_synced_on_two_nodes_in_time_is_accepted() {
        let left = verdict(&GOOD.map(str::to_owned)).expect("two syncs returned in time");
        assert_eq!(left, [Duration::from_micros(10)]);
    }

    #[test]
    fn a_missing_late_failed_or_foreign_sync_is_noticed() {
        let check = |from: &str, to: &str| {
            let error = verdict(&changed(from, to)).expect_err(to);
            assert!(error.contains("on 1 nodes"), "{error}");
        };
        check("7 100.000060 <... fdatasync resumed>) = 0 <0.000030>\n", "");
        check("7 100.000060 <... fdatasync", "7 100.000071 <... fdatasync");
        check(
            "fdatasync(9</d/n1/log/1.seg>) = 0 <0.000030>",
            "fdatasync(9</d/n1/log/1.seg>) = 0 <0.000051>",
        );
        check(
            "fdatasync(9</d/n1/log/1.seg>) = 0",
            "fdatasync(9</d/n1/log/1.seg>) = -1 EIO (Input)",
        );
        check("fdatasync(9</d/n1/log/1.seg>", "fdatasync(8</d/n1/log/2.seg>");
        check("fdatasync(9</d/n1/log/1.seg>", "fdatasync(9</d/n1/engine/1.seg>");
        check("mark-000001ab", "mark-000002ab");
        check("100.000010 pwrite64", "100.000000 pwrite64");
    }

    #[test]
    fn a_sync_begun_before_the_write_ended_proves_nothing() {
        let early = "7 100.000010 fdatasync(9</d/n1/log/1.seg> <unfinished ...>\n\
             8 100.000012 pwrite64(9</d/n1/log/1.seg>, \"mark-000001\", 512, 0) = 512 <0.000005>\n\
             7 100.000050 <... fdatasync resumed>) = 0 <0.000040>\n";
        let traces = [early.to_owned(), GOOD[1].to_owned(), String::new()];
        verdict(&traces).expect_err("only one node synced what it had written");
    }
}
