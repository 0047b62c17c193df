//! Counts allocations of the whole process, in builds with the feature `count-allocations` alone.

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// How often memory was asked for until now, growing what there was included; `None` in a build that does not count.
#[cfg(feature = "count-allocations")]
pub(crate) fn count() -> Option<u64> {
    let stats = ALLOCATOR.stats();
    Some((stats.allocations + stats.reallocations) as u64)
}

/// `None`: this build does not count.
#[cfg(not(feature = "count-allocations"))]
pub(crate) fn count() -> Option<u64> {
    None
}

#[cfg(all(test, feature = "count-allocations"))]
mod tests {
    use super::*;

    #[test]
    fn every_allocation_counts() {
        let before = count().expect("this build counts");
        let boxes: Vec<Box<u64>> = (0..1000).map(Box::new).collect();
        let after = count().expect("this build counts");
        assert!(after - before > boxes.len() as u64, "{before} and {after}");
    }
}
