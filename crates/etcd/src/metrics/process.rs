//! What the operating system says of this process. Where it says nothing, there are no samples.

use super::text::{Kind, Text};
use std::fs;

/// Clock ticks of `/proc` in a second, the same on every Linux that people run.
const TICKS_PER_SECOND: u64 = 100;

/// Writes memory, processor time and open files.
pub(super) fn render(text: &mut Text) {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let help = "Memory that is in RAM, in bytes.";
        size(text, "process_resident_memory_bytes", help, &status, "VmRSS:");
        let help = "Memory that is reserved, in bytes.";
        size(text, "process_virtual_memory_bytes", help, &status, "VmSize:");
    }
    if let Some(ticks) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| ticks(&stat)) {
        let help = "Processor time used, in seconds.";
        text.family("process_cpu_seconds_total", Kind::Counter, help);
        text.seconds(&[], ticks * (1_000_000_000 / TICKS_PER_SECOND));
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
        text.sample(&[], files.count() as u64);
    }
}

fn size(text: &mut Text, name: &'static str, help: &str, status: &str, field: &str) {
    if let Some(size) = kilobytes(status, field) {
        text.family(name, Kind::Gauge, help);
        text.sample(&[], size * 1024);
    }
}

/// A field of `/proc/self/status` that is given in kB.
fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// User and system time of `/proc/self/stat`: fields 14 and 15, counted after the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_they_are() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 901 0 3 0 250 17 0 0 20 0 9 0 100 200 300";
        assert_eq!(ticks(stat), Some(267));
        assert_eq!(ticks("nonsense"), None);
        let status = "Name:\tquorate\nVmSize:\t  301200 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12_345));
        assert_eq!(kilobytes(status, "VmHWM:"), None);
    }
}
