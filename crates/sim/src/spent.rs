//! How long processors were kept busy, where the system tells: other work on the machine does not show in it.

/// By this process, in seconds.
pub(crate) fn by_process() -> Option<f64> {
    of("/proc/self/stat")
}

/// By this thread, in seconds.
pub(crate) fn by_thread() -> Option<f64> {
    of("/proc/thread-self/stat")
}

fn of(file: &str) -> Option<f64> {
    /// The unit of the figures, on every Linux there is.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(file).ok()?;
    // The name of the program, in brackets, may hold anything; the fields are counted from behind it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
