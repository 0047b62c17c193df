//! The small searches that take seconds: unbroken code keeps every promise, and broken code does not.

use quorate_model::search::{Size, configurations, search, trap};
use quorate_types::Mistake;

/// How many states a search must have looked at to be believed: one that is cut short by mistake looks at few.
const STATE_COUNT_MIN: usize = 300;

#[test]
fn unbroken_code_keeps_every_promise_in_every_history() {
    for configuration in configurations(Size::Small) {
        if !["voter", "reads", "parted logs"].contains(&configuration.name) {
            continue;
        }
        let verdict = search(configuration.bounds, 2, None);
        let name = configuration.name;
        assert_eq!(verdict.broken, None, "{name}");
        assert_eq!(verdict.missed, Vec::<&str>::new(), "{name}");
        assert!(verdict.state_count >= STATE_COUNT_MIN, "{name}: {}", verdict.state_count);
    }
}

#[cfg(feature = "mutants")]
#[test]
fn every_mistake_that_the_model_can_show_is_found() {
    for mistake in Mistake::ALL {
        let Some(bounds) = trap(*mistake) else { continue };
        assert!(search(bounds, 2, Some(*mistake)).broken.is_some(), "{mistake} is not found");
    }
}

#[test]
fn two_leaders_and_old_commits_have_traps() {
    assert!(trap(Mistake::VoteTwice).is_some());
    assert!(trap(Mistake::OldTermCommit).is_some());
}
