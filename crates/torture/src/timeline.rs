//! The picture: faults in lanes, latency and throughput below them, over the same time axis.
//!
//! A long run is drawn in strips of about two minutes, one under the other, so that a second stays some ten points wide.
//!
//! ```text
//!   kill       ▇▇▇ n1 (leader)                     one lane a kind of fault
//!   partition              ▇▇▇▇▇ isolated: n2
//!   10 s  ─┬──────────────────────────────────     latency of answered calls, logarithmic
//!   1 ms   │ ~~~~~~~~~|e7~~~~~~~~~~~~~~~~~         | a new epoch
//!   calls  ┴ ▁▇▇▇▇▇▇▇▁▁▁▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇         answered and failed calls a second
//!   time     0:00      0:10      0:20
//! ```

use crate::options::Kind;
use crate::record::{Election, Ending, Sample, Sort};
use crate::report::{FaultReport, escape, percentile};
use std::fmt::Write;
use std::time::Duration;

/// Everything that is drawn.
pub(crate) struct Picture<'a> {
    /// How long the run was.
    pub(crate) duration: Duration,
    /// Which kinds have a lane.
    pub(crate) kinds: &'a [Kind],
    /// The calls, in order of their ends.
    pub(crate) samples: &'a [Sample],
    /// The faults.
    pub(crate) faults: &'a [FaultReport],
    /// The epochs.
    pub(crate) elections: &'a [Election],
}

/// How much time a bucket of figures spans.
const BUCKET_MS: u64 = 250;

/// How much time a strip spans at most.
const STRIP_MS: u64 = 150_000;

/// Where the time axis begins and how wide it is.
const LEFT: f64 = 92.0;
const WIDTH: f64 = 1_200.0;

/// The width of the whole.
const TOTAL_WIDTH: f64 = LEFT + WIDTH + 18.0;

/// How high everything is.
const HEAD_HEIGHT: f64 = 96.0;
const LANE_HEIGHT: f64 = 17.0;
const LATENCY_HEIGHT: f64 = 140.0;
const RATE_HEIGHT: f64 = 70.0;
const GAP: f64 = 12.0;
const AXIS_HEIGHT: f64 = 34.0;

/// The ends of the logarithmic axis, in powers of ten of a millisecond: 0.1 ms to 10 s.
const LOW_POWER: f64 = -1.0;
const HIGH_POWER: f64 = 4.0;

/// About how wide a letter of a label is.
const LETTER_WIDTH: f64 = 5.6;

const MEDIAN: &str = "#1f5fbf";
const TAIL: &str = "#e07b00";
const ANSWERED: &str = "#4c9f70";
const FAILED: &str = "#c8252c";
const OUTAGE: &str = "#f8d7d8";
const ELECTION: &str = "#7a3fb0";

/// What happened in one bucket of time.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// How long answered calls took, sorted.
    latencies: Vec<Duration>,
    /// Writes that succeeded.
    writes: usize,
    /// Calls without an answer.
    failed: usize,
}

/// Draws it.
pub(crate) fn draw(picture: &Picture<'_>) -> String {
    let duration_ms = millis(picture.duration).max(1);
    let buckets = buckets(picture.samples, duration_ms);
    // All of one length, so that the last is not nearly empty.
    let strip_count = duration_ms.div_ceil(STRIP_MS);
    let strip_ms = duration_ms.div_ceil(strip_count).next_multiple_of(10_000);
    let strip_height = strip_height(picture.kinds.len());
    #[expect(clippy::cast_precision_loss, reason = "a few strips")]
    let height = HEAD_HEIGHT + strip_count as f64 * strip_height;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{TOTAL_WIDTH}' height='{height}' \
         viewBox='0 0 {TOTAL_WIDTH} {height}' font-family='DejaVu Sans,Verdana,sans-serif' font-size='10'>\
         <rect width='{TOTAL_WIDTH}' height='{height}' fill='white'/>"
    );
    legend(&mut svg);
    let top_rate = top_rate(&buckets);
    let mut top = HEAD_HEIGHT;
    for number in 0..strip_count {
        let strip = Strip {
            from_ms: number * strip_ms,
            span_ms: strip_ms,
            end_ms: duration_ms,
            top,
            top_rate,
            picture,
            buckets: &buckets,
        };
        strip.draw(&mut svg);
        top += strip_height;
    }
    svg.push_str("</svg>");
    svg
}

fn strip_height(lane_count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a dozen lanes")]
    let lanes = lane_count as f64 * LANE_HEIGHT;
    lanes + LATENCY_HEIGHT + RATE_HEIGHT + 2.0 * GAP + AXIS_HEIGHT + GAP
}

fn buckets(samples: &[Sample], duration_ms: u64) -> Vec<Bucket> {
    let count = usize::try_from(duration_ms / BUCKET_MS + 1).expect("a run of reasonable length");
    let mut buckets = vec![Bucket::default(); count];
    for sample in samples {
        let number = usize::try_from(millis(sample.ended) / BUCKET_MS).unwrap_or(usize::MAX);
        let Some(bucket) = buckets.get_mut(number) else { continue };
        match sample.ending {
            Ending::Ok => {
                bucket.latencies.push(sample.latency);
                bucket.writes += usize::from(sample.sort == Sort::Write);
            }
            Ending::Refused | Ending::Unknown => bucket.failed += 1,
        }
    }
    buckets.iter_mut().for_each(|bucket| bucket.latencies.sort_unstable());
    buckets
}

/// The end of the axis of calls a second: a round number above all but outliers.
fn top_rate(buckets: &[Bucket]) -> f64 {
    let highest = buckets.iter().map(|bucket| bucket.latencies.len() + bucket.failed).max();
    let highest = rate(highest.unwrap_or(0));
    let rounds = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
    rounds.into_iter().find(|round| *round >= highest).unwrap_or(10_000.0)
}

/// Calls a second from calls a bucket.
#[expect(clippy::cast_precision_loss, reason = "counts of calls")]
fn rate(count: usize) -> f64 {
    count as f64 * 1_000.0 / BUCKET_MS as f64
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "#d1495b",
        Kind::Power => "#8c1c2f",
        Kind::Pause => "#e59500",
        Kind::Partition => "#2e6f95",
        Kind::SlowLink => "#6fa8c7",
        Kind::DiskSlow => "#8d99ae",
        Kind::DiskFail => "#5c677d",
        Kind::DiskFull => "#33415c",
        Kind::Clock => "#b08968",
        Kind::Members => "#5a8f29",
        Kind::Rolling => "#9aa520",
    }
}

/// Writing to a string cannot fail.
macro_rules! add {
    ($svg:expr, $($text:tt)*) => {{ let _ = write!($svg, $($text)*); }};
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, fill: &str, content: &str) {
    let content = escape(content);
    add!(svg, "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' fill='{fill}'>{content}</text>");
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, style: &str) {
    add!(svg, "<rect x='{x:.1}' y='{y:.1}' width='{width:.2}' height='{height:.1}' {style}/>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    add!(svg, "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' {style}/>");
}

/// What the signs mean.
fn legend(svg: &mut String) {
    add!(
        svg,
        "<text x='12' y='22' font-size='15' font-weight='600' fill='#1d2733'>Faults, and what clients saw of them</text>"
    );
    let entries: [(&str, &str); 7] = [
        (
            "band",
            "a fault, in the lane of its kind, labelled with whom it struck; the pale part after it: until every member answers again",
        ),
        ("election", "a new leader's epoch is first seen"),
        ("median", "half of the answered calls took at most this (p50)"),
        ("tail", "99 % did (p99)"),
        ("outage", "no write succeeded"),
        ("answered", "calls answered, per second"),
        ("failed", "calls without an answer, per second"),
    ];
    let places = [
        (12.0, 42.0),
        (860.0, 42.0),
        (12.0, 60.0),
        (370.0, 60.0),
        (520.0, 60.0),
        (700.0, 60.0),
        (930.0, 60.0),
    ];
    for ((sign, meaning), (x, y)) in entries.into_iter().zip(places) {
        match sign {
            "band" => {
                rect(svg, x, y - 9.0, 18.0, 11.0, "fill='#2e6f95'");
                rect(svg, x + 18.0, y - 9.0, 8.0, 11.0, "fill='#2e6f95' opacity='0.3'");
            }
            "election" => line(
                svg,
                (x + 10.0, y - 10.0),
                (x + 10.0, y + 3.0),
                &format!("stroke='{ELECTION}' stroke-width='1.4'"),
            ),
            "median" => line(
                svg,
                (x, y - 4.0),
                (x + 24.0, y - 4.0),
                &format!("stroke='{MEDIAN}' stroke-width='2'"),
            ),
            "tail" => line(
                svg,
                (x, y - 4.0),
                (x + 24.0, y - 4.0),
                &format!("stroke='{TAIL}' stroke-width='1.4'"),
            ),
            "outage" => rect(svg, x, y - 9.0, 24.0, 11.0, &format!("fill='{OUTAGE}'")),
            "answered" => rect(svg, x, y - 9.0, 24.0, 11.0, &format!("fill='{ANSWERED}'")),
            _ => rect(svg, x, y - 9.0, 24.0, 11.0, &format!("fill='{FAILED}'")),
        }
        text(svg, x + 30.0, y, "start", "#3b4754", meaning);
    }
    let note = format!(
        "Time runs to the right, in minutes and seconds since the clients began; each strip goes on where the one above ends. Figures are of {BUCKET_MS} ms each."
    );
    text(svg, 12.0, 78.0, "start", "#6b7684", &note);
}

/// One strip of time.
struct Strip<'a> {
    from_ms: u64,
    span_ms: u64,
    /// Where the run ended.
    end_ms: u64,
    top: f64,
    top_rate: f64,
    picture: &'a Picture<'a>,
    buckets: &'a [Bucket],
}

impl Strip<'_> {
    fn to_ms(&self) -> u64 {
        (self.from_ms + self.span_ms).min(self.end_ms)
    }

    /// Where a moment lies, if need be at the nearer end.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a strip")]
    fn x(&self, at_ms: u64) -> f64 {
        let inside = at_ms.clamp(self.from_ms, self.to_ms()) - self.from_ms;
        LEFT + inside as f64 / self.span_ms as f64 * WIDTH
    }

    fn latency_top(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a dozen lanes")]
        let lanes = self.picture.kinds.len() as f64 * LANE_HEIGHT;
        self.top + lanes + GAP
    }

    fn rate_top(&self) -> f64 {
        self.latency_top() + LATENCY_HEIGHT + GAP
    }

    fn draw(&self, svg: &mut String) {
        self.outages(svg);
        self.lanes(svg);
        self.axes(svg);
        self.throughput(svg);
        self.latency(svg, 50, MEDIAN, "1.6");
        self.latency(svg, 99, TAIL, "1");
        self.elections(svg);
    }

    /// The buckets of this strip, each with where it begins and ends.
    fn inside(&self) -> impl Iterator<Item = (f64, f64, &Bucket)> {
        let numbered = self.buckets.iter().enumerate();
        numbered.filter_map(|(number, bucket)| {
            let begin = number as u64 * BUCKET_MS;
            let is_inside = begin >= self.from_ms && begin < self.to_ms();
            is_inside.then(|| (self.x(begin), self.x(begin + BUCKET_MS), bucket))
        })
    }

    fn outages(&self, svg: &mut String) {
        let height = LATENCY_HEIGHT + GAP + RATE_HEIGHT;
        for (from, to, bucket) in self.inside() {
            if bucket.writes == 0 {
                let style = format!("fill='{OUTAGE}'");
                rect(svg, from, self.latency_top(), to - from + 0.2, height, &style);
            }
        }
    }

    fn lanes(&self, svg: &mut String) {
        let mut y = self.top;
        for kind in self.picture.kinds {
            text(svg, LEFT - 8.0, y + 11.5, "end", "#3b4754", kind.name());
            let bottom = y + LANE_HEIGHT - 1.0;
            line(svg, (LEFT, bottom), (LEFT + WIDTH, bottom), "stroke='#e6eaef'");
            // A label may use what is free up to the next band.
            let faults: Vec<&FaultReport> = self
                .picture
                .faults
                .iter()
                .filter(|fault| fault.kind == *kind)
                .filter(|fault| fault.recovered_ms > self.from_ms && fault.began_ms < self.to_ms())
                .collect();
            for (number, fault) in faults.iter().enumerate() {
                let next =
                    faults.get(number + 1).map_or(LEFT + WIDTH, |next| self.x(next.began_ms));
                self.band(svg, y, fault, next);
            }
            y += LANE_HEIGHT;
        }
    }

    fn band(&self, svg: &mut String, y: f64, fault: &FaultReport, next: f64) {
        let (from, healed) = (self.x(fault.began_ms), self.x(fault.healed_ms));
        let (recovered, fill) = (self.x(fault.recovered_ms), colour(fault.kind));
        let height = LANE_HEIGHT - 4.0;
        rect(svg, from, y + 1.0, (healed - from).max(1.5), height, &format!("fill='{fill}'"));
        let pale = format!("fill='{fill}' opacity='0.3'");
        rect(svg, healed, y + 1.0, (recovered - healed).max(0.0), height, &pale);
        #[expect(clippy::cast_precision_loss, reason = "letters of a label")]
        let fitting = |room: f64| -> String {
            let label = &fault.what;
            if label.chars().count() as f64 * LETTER_WIDTH <= room {
                return label.clone();
            }
            // The name of the node, or that it is all of them, says most.
            let words = label.split_whitespace();
            let short = words.filter(|word| {
                *word == "all"
                    || word.starts_with('n')
                        && word[1..].starts_with(|letter: char| letter.is_ascii_digit())
            });
            let short: Vec<&str> = short.collect();
            let short = short.join("→");
            if !short.is_empty() && short.chars().count() as f64 * LETTER_WIDTH <= room {
                short
            } else {
                String::new()
            }
        };
        let inside = fitting(healed - from - 4.0);
        if inside == fault.what {
            text(svg, from + 3.0, y + 11.0, "start", "white", &inside);
            return;
        }
        let beside = fitting(next - recovered - 6.0);
        if beside.len() >= inside.len() {
            text(svg, recovered + 3.0, y + 11.0, "start", "#3b4754", &beside);
        } else {
            text(svg, from + 3.0, y + 11.0, "start", "white", &inside);
        }
    }

    /// Where a latency lies.
    fn latency_y(&self, span: Duration) -> f64 {
        let power = (span.as_secs_f64() * 1e3).max(1e-9).log10().clamp(LOW_POWER, HIGH_POWER);
        let share = (power - LOW_POWER) / (HIGH_POWER - LOW_POWER);
        self.latency_top() + LATENCY_HEIGHT * (1.0 - share)
    }

    fn axes(&self, svg: &mut String) {
        let (latency_top, rate_top) = (self.latency_top(), self.rate_top());
        let bottom = rate_top + RATE_HEIGHT;
        for (micros, name) in [
            (100, "0.1 ms"),
            (1_000, "1 ms"),
            (10_000, "10 ms"),
            (100_000, "100 ms"),
            (1_000_000, "1 s"),
            (10_000_000, "10 s"),
        ] {
            let y = self.latency_y(Duration::from_micros(micros));
            line(svg, (LEFT, y), (LEFT + WIDTH, y), "stroke='#d5dbe3' stroke-width='0.7'");
            text(svg, LEFT - 8.0, y + 3.5, "end", "#3b4754", name);
        }
        for share in [0.0, 0.5, 1.0] {
            let y = bottom - share * RATE_HEIGHT;
            line(svg, (LEFT, y), (LEFT + WIDTH, y), "stroke='#d5dbe3' stroke-width='0.7'");
            let name = format!("{:.0}/s", share * self.top_rate);
            text(svg, LEFT - 8.0, y + 3.5, "end", "#3b4754", &name);
        }
        for (name, middle) in [
            ("latency", latency_top + LATENCY_HEIGHT / 2.0),
            ("calls", rate_top + RATE_HEIGHT / 2.0),
        ] {
            add!(
                svg,
                "<text transform='translate(14,{middle:.1}) rotate(-90)' text-anchor='middle' fill='#1d2733' font-weight='600'>{name}</text>"
            );
        }
        let mut at = self.from_ms;
        while at <= self.to_ms() {
            let x = self.x(at);
            line(svg, (x, self.top), (x, bottom + 4.0), "stroke='#aab4c0' stroke-width='0.4'");
            let name = format!("{}:{:02}", at / 60_000, at / 1_000 % 60);
            text(svg, x, bottom + 16.0, "middle", "#1d2733", &name);
            at += 10_000;
        }
    }

    fn throughput(&self, svg: &mut String) {
        let bottom = self.rate_top() + RATE_HEIGHT;
        let height = |count: usize| (rate(count) / self.top_rate).min(1.0) * RATE_HEIGHT;
        for (from, to, bucket) in self.inside() {
            let (answered, failed) = (height(bucket.latencies.len()), height(bucket.failed));
            let width = to - from + 0.1;
            if answered > 0.0 {
                let style = format!("fill='{ANSWERED}'");
                rect(svg, from, bottom - answered, width, answered, &style);
            }
            if failed > 0.0 {
                let style = format!("fill='{FAILED}'");
                rect(svg, from, bottom - answered - failed, width, failed, &style);
            }
        }
    }

    fn latency(&self, svg: &mut String, percent: usize, stroke: &str, width: &str) {
        let mut path = String::new();
        let mut is_down = false;
        for (from, to, bucket) in self.inside() {
            let Some(span) = percentile(&bucket.latencies, percent) else {
                is_down = false;
                continue;
            };
            let (x, y) = (f64::midpoint(from, to), self.latency_y(span));
            add!(path, "{}{x:.1},{y:.1}", if is_down { 'L' } else { 'M' });
            is_down = true;
        }
        add!(
            svg,
            "<path d='{path}' fill='none' stroke='{stroke}' stroke-width='{width}' stroke-linejoin='round'/>"
        );
    }

    fn elections(&self, svg: &mut String) {
        let (top, bottom) = (self.latency_top(), self.rate_top() + RATE_HEIGHT);
        let style = format!("stroke='{ELECTION}' stroke-width='1' stroke-dasharray='3 2'");
        let mut free = LEFT;
        for election in self.picture.elections {
            if !(self.from_ms..self.to_ms()).contains(&election.at_ms) {
                continue;
            }
            let x = self.x(election.at_ms);
            line(svg, (x, top), (x, bottom), &style);
            if x >= free {
                let name = format!("e{}", election.epoch);
                text(svg, x + 2.0, top + 9.0, "start", ELECTION, &name);
                free = x + 22.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_each_fault_election_and_outage_once_in_its_strip() {
        let sample = |at_ms: u64| Sample {
            ended: Duration::from_millis(at_ms),
            latency: Duration::from_millis(2),
            sort: Sort::Write,
            ending: Ending::Ok,
        };
        let samples: Vec<Sample> = (0..160_000)
            .step_by(50)
            .filter(|at| !(5_000..6_000).contains(at))
            .map(sample)
            .collect();
        let fault = FaultReport {
            kind: Kind::Kill,
            what: "n1 (leader) <>".into(),
            began_ms: 5_000,
            healed_ms: 15_000,
            recovered_ms: 16_000,
            unavailable_ms: 1_000,
            ready_ms: Some(1_000),
            owed: Vec::new(),
        };
        let picture = Picture {
            duration: Duration::from_secs(160),
            kinds: &[Kind::Kill, Kind::Power],
            samples: &samples,
            faults: &[fault],
            elections: &[Election { at_ms: 121_000, epoch: 9 }],
        };
        let svg = draw(&picture);
        assert_eq!(svg.matches("n1 (leader) &lt;&gt;").count(), 1);
        assert_eq!(svg.matches(">e9<").count(), 1);
        assert_eq!(svg.matches(">power<").count(), 2, "a lane in each of two strips");
        let outages = svg.matches(&format!("fill='{OUTAGE}'")).count();
        assert_eq!(outages, 1 + 4, "in the legend, and four buckets");
    }
}
