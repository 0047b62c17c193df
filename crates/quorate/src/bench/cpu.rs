//! How much processor time a process took, from `/proc`: the generator shares its machine with the servers, so
//! its own part is reported beside what it measures.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The processor time that the threads of `process` have taken until now; `None` where `/proc` does not say
/// (another system, or the process is gone).
pub(crate) fn cpu_time(process: u32) -> Option<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let nanoseconds: Vec<u64> =
        tasks.flatten().filter_map(|task| task_time(&task.path())).collect();
    if nanoseconds.is_empty() {
        return None;
    }
    Some(Duration::from_nanos(nanoseconds.iter().sum()))
}

/// The same for each thread, by name; threads of one name count together.
pub(crate) fn cpu_time_of_threads(process: u32) -> BTreeMap<String, Duration> {
    let mut times: BTreeMap<String, Duration> = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return times };
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm"));
        if let (Ok(name), Some(time)) = (name, task_time(&task.path())) {
            *times.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(time);
        }
    }
    times
}

/// The first field of `schedstat` is the time on a processor, in nanoseconds.
fn task_time(task: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_processor_time() {
        let before = cpu_time(std::process::id()).expect("this process runs");
        let mut sum = 0_u64;
        for value in 0..20_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(value));
        }
        let after = cpu_time(std::process::id()).expect("this process runs");
        assert!(after > before, "{after:?} is not above {before:?} ({sum})");
    }
}
