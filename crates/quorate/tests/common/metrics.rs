//! What a node shows at `/metrics`, as numbers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One scrape: each sample under its name with its labels, as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks a node; none when it does not answer.
    pub(crate) fn scrape(address: &str) -> Option<Metrics> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Some(Metrics(samples.filter_map(sample).collect()))
    }

    /// The one sample of this name that has these labels among its own, each written as `name="value"`.
    pub(crate) fn find(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let fits = |text: &&String| match text.strip_prefix(name) {
            Some("") => labels.is_empty(),
            Some(rest) => rest.starts_with('{') && labels.iter().all(|label| rest.contains(label)),
            None => false,
        };
        let mut found = self.0.iter().filter(|(text, _)| fits(text));
        let first = found.next().map(|(_, value)| *value);
        assert!(found.next().is_none(), "several samples are called {name} {labels:?}");
        first
    }

    /// As [`Metrics::find`], of a sample that is there.
    pub(crate) fn value(&self, name: &str, labels: &[&str]) -> f64 {
        self.find(name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in {:?}", self.0.keys()))
    }

    /// How many observations a histogram of seconds has, and their sum; none of a histogram that is not there yet.
    pub(crate) fn histogram(&self, name: &str, labels: &[&str]) -> (f64, f64) {
        let part = |part| self.find(&format!("{name}_{part}"), labels).unwrap_or(0.0);
        (part("count"), part("sum"))
    }
}
