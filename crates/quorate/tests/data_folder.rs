//! A data folder belongs to one node and to one process at a time.

use crate::common::{Cluster, run};
use rustix::process::Signal;

#[test]
fn a_folder_in_use_is_refused_and_read_once_it_is_free() {
    let mut cluster = Cluster::formed();
    cluster.client().put("greeting", "hello");
    let folder = cluster.data_dir(0).display().to_string();
    let dump = run(&["dump", "--data-dir", &folder]);
    assert_eq!(dump.code, Some(1), "{dump:?}");
    assert!(dump.stderr.contains("in use by"), "{dump:?}");

    cluster.node(0).signal(Signal::TERM);
    assert_eq!(cluster.node(0).wait(), Some(0), "{}", cluster.node(0).log());
    let dump = run(&["dump", "--data-dir", &folder]);
    assert_eq!(dump.code, Some(0), "{dump:?}");
    assert!(dump.stdout.contains("g0 write(1@"), "{}", dump.stdout);
    assert!(!dump.stdout.contains("DAMAGED"), "{}", dump.stdout);

    let log = cluster.data_dir(0).join("log");
    let file = std::fs::read_dir(&log).expect("it is there").flatten().next().expect("a segment");
    let file = file.path();
    let alone = run(&["dump", &file.display().to_string()]);
    assert_eq!(alone.code, Some(0), "{alone:?}");
    let copy = cluster.scratch().join(file.file_name().expect("it has a name"));
    std::fs::copy(&file, &copy).expect("copied");
    let copied = run(&["dump", &copy.display().to_string()]);
    assert_eq!(copied.stdout, alone.stdout);
}

#[test]
fn the_folder_of_another_node_or_program_is_refused() {
    let mut cluster = Cluster::formed();
    cluster.node(0).signal(Signal::INT);
    assert_eq!(cluster.node(0).wait(), Some(0), "{}", cluster.node(0).log());
    cluster.kill(1);
    std::fs::rename(cluster.data_dir(1), cluster.scratch().join("aside")).expect("renamed");
    std::fs::rename(cluster.data_dir(0), cluster.data_dir(1)).expect("renamed");
    let refused = cluster.start_in_vain(1);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("n1") && refused.stderr.contains("n2"), "{refused:?}");

    std::fs::create_dir_all(cluster.data_dir(0).join("member")).expect("made");
    let refused = cluster.start_in_vain(0);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no data folder of Quorate"), "{refused:?}");
}

#[test]
fn a_folder_of_a_later_format_is_refused_and_stays_as_it_is() {
    let mut cluster = Cluster::formed();
    cluster.kill(0);
    let identity = cluster.data_dir(0).join("identity");
    let mut later = std::fs::read(&identity).expect("it is there");
    later[4] += 1;
    std::fs::write(&identity, &later).expect("written");
    let refused = cluster.start_in_vain(0);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("format version 2"), "{refused:?}");
    assert_eq!(std::fs::read(&identity).expect("it is there"), later);
}
