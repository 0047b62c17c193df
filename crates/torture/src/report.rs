//! What is left of a run: lines while it runs, `report.json` for machines, `report.html` and `timeline.svg` for people.

use crate::Result;
use crate::options::{Kind, Options};
use crate::record::{Ending, Sample, Sort, Taken};
use crate::timeline::{self, Picture};
use crate::verdict::{self, Finding};
use serde::Serialize;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// One fault and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultReport {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Whom it struck and how.
    pub(crate) what: String,
    /// When it began, in milliseconds since the run began, as all that follow.
    pub(crate) began_ms: u64,
    /// When it was healed.
    pub(crate) healed_ms: u64,
    /// When every member answered a linearizable read again.
    pub(crate) recovered_ms: u64,
    /// The longest time without a write that succeeded, from its beginning to the recovery.
    pub(crate) unavailable_ms: u64,
    /// How long after the heal every member answered; none when one did not in time.
    pub(crate) ready_ms: Option<u64>,
    /// What was owed and not done.
    pub(crate) owed: Vec<String>,
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultReport { what, unavailable_ms, .. } = self;
        let (at, kind) = (clock(self.began_ms), self.kind.name());
        let seconds = seconds(self.healed_ms - self.began_ms);
        write!(
            f,
            "{at:>9}  {kind:<10} {seconds:>6} s  longest without a write {unavailable_ms:>6} ms  {what}"
        )?;
        self.owed.iter().try_for_each(|reason| write!(f, "\n           OWED: {reason}"))
    }
}

/// Everything that is known of a run.
pub(crate) struct Facts {
    /// What it was drawn from.
    pub(crate) seed: u64,
    /// What was asked for.
    pub(crate) options: Options,
    /// Which kinds of fault could strike.
    pub(crate) kinds: Vec<Kind>,
    /// What was left out and why.
    pub(crate) notes: Vec<String>,
    /// What was tested.
    pub(crate) version: String,
    /// How long the checkers took.
    pub(crate) judged_in: Duration,
    /// How long the run was.
    pub(crate) duration: Duration,
    /// The faults.
    pub(crate) faults: Vec<FaultReport>,
    /// The verdict, promise by promise.
    pub(crate) findings: Vec<Finding>,
}

/// The figures of one sort of calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    ok: usize,
    refused: usize,
    unknown: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// `report.json`.
#[derive(Serialize)]
struct Machine<'a> {
    verdict: &'static str,
    seed: u64,
    version: &'a str,
    nodes: usize,
    minutes: f64,
    clients: u16,
    rate: u32,
    sabotage: Option<crate::options::Sabotage>,
    duration_ms: u64,
    judged_in_ms: u64,
    kinds: &'a [Kind],
    notes: &'a [String],
    findings: &'a [Finding],
    writes: Figures,
    reads: Figures,
    serializable_reads: Figures,
    calls: std::collections::BTreeMap<&'static str, usize>,
    failures: &'a std::collections::BTreeMap<String, u64>,
    elections: &'a [crate::record::Election],
    faults: &'a [FaultReport],
}

impl Facts {
    /// Writes everything down, prints the verdict and gives whether it is PASS.
    pub(crate) fn publish(&self, folder: &Path, taken: &Taken) -> Result<bool> {
        let picture = Picture {
            duration: self.duration,
            kinds: &self.kinds,
            samples: &taken.samples,
            faults: &self.faults,
            elections: &taken.elections,
        };
        let svg = timeline::draw(&picture);
        let machine = self.machine(taken);
        let json = serde_json::to_string_pretty(&machine).map_err(|error| error.to_string())?;
        let html = self.html(&machine, &svg);
        for (name, content) in [("report.json", json), ("report.html", html), ("timeline.svg", svg)]
        {
            let path = folder.join(name);
            fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        for Finding { promise, kept, seen } in &self.findings {
            println!("{} {promise}: {seen}", if *kept { "kept  " } else { "BROKEN" });
        }
        let Figures { per_second, p50_ms, p99_ms, .. } = machine.writes;
        println!(
            "writes {per_second:.0}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms; {} faults, {} epochs; judged in {:.1} s",
            self.faults.len(),
            taken.elections.len(),
            self.judged_in.as_secs_f64()
        );
        println!("report: {}", folder.join("report.html").display());
        println!("verdict: {} (seed {})", machine.verdict, self.seed);
        Ok(verdict::is_pass(&self.findings))
    }

    fn machine<'a>(&'a self, taken: &'a Taken) -> Machine<'a> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let figures = |sort| figures(&taken.samples, sort, self.duration);
        Machine {
            verdict: if verdict::is_pass(&self.findings) { "PASS" } else { "FAIL" },
            seed: self.seed,
            version: &self.version,
            nodes: self.options.nodes,
            minutes: self.options.minutes,
            clients: self.options.clients,
            rate: self.options.rate,
            sabotage: self.options.sabotage,
            duration_ms: millis(self.duration),
            judged_in_ms: millis(self.judged_in),
            kinds: &self.kinds,
            notes: &self.notes,
            findings: &self.findings,
            writes: figures(Sort::Write),
            reads: figures(Sort::Read),
            serializable_reads: figures(Sort::SerializableRead),
            calls: verdict::call_counts(&taken.history).into_iter().collect(),
            failures: &taken.failures,
            elections: &taken.elections,
            faults: &self.faults,
        }
    }

    fn html(&self, machine: &Machine<'_>, svg: &str) -> String {
        let mut rows = String::new();
        for Finding { promise, kept, seen } in &self.findings {
            let (class, word) = if *kept { ("kept", "kept") } else { ("broken", "BROKEN") };
            let (promise, seen) = (escape(promise), escape(seen));
            // Writing to a string cannot fail.
            let _ = write!(
                rows,
                "<tr><td class={class}>{word}</td><td>{promise}</td><td>{seen}</td></tr>"
            );
        }
        let mut faults = String::new();
        for fault in &self.faults {
            let (at, kind) = (clock(fault.began_ms), fault.kind.name());
            let lasted = seconds(fault.healed_ms - fault.began_ms);
            let ready = fault.ready_ms.map_or("never".into(), |ready| format!("{ready} ms"));
            let (what, owed) = (escape(&fault.what), escape(&fault.owed.join("; ")));
            let (class, owed) =
                if owed.is_empty() { ("kept", "nothing") } else { ("broken", owed.as_str()) };
            let _ = write!(
                faults,
                "<tr><td>{at}</td><td>{kind}</td><td>{what}</td><td>{lasted} s</td>\
                 <td>{} ms</td><td>{ready}</td><td class={class}>{owed}</td></tr>",
                fault.unavailable_ms
            );
        }
        let mut figures = String::new();
        for (name, one) in [
            ("writes", &machine.writes),
            ("linearizable reads", &machine.reads),
            ("serializable reads", &machine.serializable_reads),
        ] {
            let Figures { ok, refused, unknown, per_second, p50_ms, p99_ms, max_ms } = one;
            let _ = write!(
                figures,
                "<tr><td>{name}</td><td>{ok}</td><td>{refused}</td><td>{unknown}</td>\
                 <td>{per_second:.1}</td><td>{p50_ms:.2} ms</td><td>{p99_ms:.2} ms</td><td>{max_ms:.0} ms</td></tr>"
            );
        }
        let notes: String =
            self.notes.iter().map(|note| format!("<p class=note>{}</p>", escape(note))).collect();
        let replay = format!(
            "cargo xtask torture --seed {} --nodes {} --minutes {}",
            self.seed, self.options.nodes, self.options.minutes
        );
        let Machine { verdict, version, nodes, .. } = machine;
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>torture: {verdict}</title>\
             <style>{STYLE}</style><h1>Torture: <span class={verdict}>{verdict}</span></h1>\
             <p>{version}; {nodes} nodes, {} clients, seed {}. The same schedule again: <code>{replay}</code></p>{notes}\
             <h2>Promises</h2><table><tr><th></th><th>promise</th><th>seen</th></tr>{rows}</table>\
             <h2>Faults against latency and availability</h2>{svg}\
             <h2>Calls</h2><table><tr><th></th><th>answered</th><th>refused</th><th>unknown</th>\
             <th>answered/s</th><th>p50</th><th>p99</th><th>longest</th></tr>{figures}</table>\
             <h2>Faults</h2><table><tr><th>at</th><th>kind</th><th>whom and how</th><th>lasted</th>\
             <th>longest without a write</th><th>all members answer again after</th><th>late or wrong</th></tr>{faults}</table></html>",
            self.options.clients, self.seed
        )
    }
}

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:1320px;color:#1d2733}\
table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.2em .8em;border-bottom:1px solid #dde3ea}\
.PASS,.kept{color:#12733b}.FAIL,.broken{color:#b3161b;font-weight:600}.note{color:#8a5a00}code{background:#eef1f5;padding:0 .3em}";

/// Milliseconds since the run began, as minutes and seconds.
pub(crate) fn clock(millis: u64) -> String {
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    format!("{minutes}:{:02}.{}", rest / 1_000, rest % 1_000 / 100)
}

fn seconds(millis: u64) -> String {
    format!("{}.{}", millis / 1_000, millis % 1_000 / 100)
}

/// Text for HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn figures(samples: &[Sample], sort: Sort, duration: Duration) -> Figures {
    let of = |ending| {
        samples.iter().filter(move |sample| sample.sort == sort && sample.ending == ending)
    };
    let mut latencies: Vec<Duration> = of(Ending::Ok).map(|sample| sample.latency).collect();
    latencies.sort_unstable();
    let millis = |span: Option<Duration>| span.unwrap_or_default().as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a count of operations")]
    let per_second = latencies.len() as f64 / duration.as_secs_f64().max(1e-3);
    Figures {
        ok: latencies.len(),
        refused: of(Ending::Refused).count(),
        unknown: of(Ending::Unknown).count(),
        per_second,
        p50_ms: millis(percentile(&latencies, 50)),
        p99_ms: millis(percentile(&latencies, 99)),
        max_ms: millis(latencies.last().copied()),
    }
}

/// The value below which this percentage of sorted values lies.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(sorted.len() * percent / 100).min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(clock(0), "0:00.0");
        assert_eq!(clock(65_432), "1:05.4");
        assert_eq!(seconds(12_340), "12.3");
    }

    #[test]
    fn percentiles_of_few_values_are_values() {
        let values: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Some(Duration::from_millis(6)));
        assert_eq!(percentile(&values, 99), Some(Duration::from_millis(10)));
        assert_eq!(percentile(&[], 50), None);
    }
}
