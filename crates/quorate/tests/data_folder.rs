//! A data folder belongs to one node and to one process at a time. Data of another cluster, of another protocol or of a later
//! version, every checksum right, is refused, told and left untouched.

use crate::common::{Cluster, run, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Where the identity file holds its format version, its protocol, and before which end its hash begins.
const IDENTITY_VERSION_AT: usize = 4;
const IDENTITY_PROTOCOL_AT: usize = 12;
const IDENTITY_HASH_SIZE: usize = 8;

/// Where a block of the log holds its format version, and the checksum up to there.
const BLOCK_VERSION_AT: usize = 8;
const BLOCK_VERSION_CRC_AT: usize = 12;

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

/// Every file below a folder with its content, but for the lock and the engine, which are opened before anything is
/// refused.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file")) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "engine" {
            found.extend(files(&path));
        } else if path.is_file() && entry.file_name() != "LOCK" {
            let content = std::fs::read(&path).expect("it can be read");
            found.push((path, content));
        }
    }
    found.sort();
    found
}

/// Changes a file of a stopped node, runs the command that starts it, and puts the file back; gives what was said.
fn check_refused(
    cluster: &Cluster,
    file: &Path,
    change: impl Fn(&mut [u8]),
    parts: &[&str],
) -> String {
    let former = std::fs::read(file).expect("it is there");
    let mut changed = former.clone();
    change(&mut changed);
    std::fs::write(file, &changed).expect("written");
    let before = files(&cluster.data_dir(0));
    let refused = cluster.start_in_vain(0);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in parts {
        assert!(refused.stderr.contains(part), "`{part}` is not in {}", refused.stderr);
    }
    assert!(files(&cluster.data_dir(0)) == before, "a folder that is refused stays as it is");
    std::fs::write(file, &former).expect("written");
    refused.stderr
}

#[test]
fn data_of_another_protocol_or_a_later_format_is_refused_and_nothing_is_lost() {
    let mut cluster = Cluster::formed();
    let mut client = cluster.client();
    client.put("kept", "1");
    wait_for("n1 to have it", || client.get_at(0, "kept", true).ok()?);
    cluster.kill(0);
    let identity = cluster.data_dir(0).join("identity");
    let sealed = |at: usize, value: u8| {
        move |file: &mut [u8]| {
            file[at] = value;
            let end = file.len() - IDENTITY_HASH_SIZE;
            let hash = xxh3_64(&file[..end]);
            file[end..].copy_from_slice(&hash.to_le_bytes());
        }
    };
    let later = sealed(IDENTITY_VERSION_AT, 9);
    let said_later =
        check_refused(&cluster, &identity, later, &["identity", "format version 9", "knows 2"]);
    let paxos = sealed(IDENTITY_PROTOCOL_AT, 2);
    let said_paxos = check_refused(&cluster, &identity, paxos, &["paxos", "raft"]);
    let unknown = sealed(IDENTITY_PROTOCOL_AT, 77);
    let said_unknown = check_refused(&cluster, &identity, unknown, &["identity", "protocol", "77"]);

    let segment = cluster.data_dir(0).join("log/0000000000000001.seg");
    let later = |file: &mut [u8]| {
        file[BLOCK_VERSION_AT..BLOCK_VERSION_CRC_AT].copy_from_slice(&7_u32.to_le_bytes());
        let crc = crc32c::crc32c(&file[..BLOCK_VERSION_CRC_AT]);
        file[BLOCK_VERSION_CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
    };
    let parts = ["log/0000000000000001.seg offset 0", "log format 7", "reads format 1"];
    let said_log = check_refused(&cluster, &segment, later, &parts);
    print!("{said_later}{said_paxos}{said_unknown}{said_log}");

    cluster.start(0);
    wait_for("n1 to serve again", || client.get_at(0, "kept", false).ok()?);
}

#[test]
fn a_folder_of_another_cluster_takes_no_part_and_both_sides_say_so() {
    let mut theirs = Cluster::formed();
    theirs.client().put("theirs", "1");
    (0..3).for_each(|node| theirs.kill(node));
    let mut ours = Cluster::formed();
    let mut client = ours.client();
    client.put("ours", "1");
    ours.kill(0);
    let folder = ours.data_dir(0);
    std::fs::rename(&folder, ours.scratch().join("aside")).expect("renamed");
    std::fs::rename(theirs.data_dir(0), &folder).expect("renamed");
    ours.start(0);
    for node in 0..3 {
        ours.node(node).wait_for_log("foreign data folder");
    }
    client.put("ours", "2");
    for node in [1, 2] {
        let found = client.get_at(node, "ours", false).expect("it serves");
        assert_eq!(found.as_deref(), Some("2"), "n{}", node + 1);
        assert_eq!(client.get_at(node, "theirs", false).expect("it serves"), None);
    }
    assert_eq!(client.get_at(0, "ours", true).ok().flatten(), None, "n1 was told nothing of ours");

    ours.kill(0);
    std::fs::rename(&folder, theirs.data_dir(0)).expect("renamed");
    std::fs::rename(ours.scratch().join("aside"), &folder).expect("renamed");
    ours.start(0);
    wait_for("n1 to catch up", || {
        let found = client.get_at(0, "ours", true).ok()??;
        (found == "2").then_some(())
    });
}
