//! Damage to the log of a stopped node: never served, nothing acknowledged cut, and said where it is.

mod contents;
mod layout;

use crate::common::{Client, Cluster, wait_for};
use contents::Contents;
use layout::{Block, CHAIN_AT, HEADER_SIZE, Kind};
use quorate_log::LogOptions;
use quorate_types::Index;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How many bits are flipped, one at a time.
const FLIP_COUNT: usize = 1_000;

/// How many puts make the log a used one.
const PUT_COUNT: usize = 200;

/// What pages lose at once.
const PAGE_SIZE: usize = 4096;

/// A stream of numbers that a seed fixes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).expect("31 bits fit") % limit
    }
}

/// Everything that was acknowledged, by key.
type Acknowledged = BTreeMap<String, String>;

fn put_some(client: &mut Client, acknowledged: &mut Acknowledged, count: usize) {
    for _ in 0..count {
        let number = acknowledged.len();
        let (key, value) =
            (format!("key/{number:06}"), format!("value {number:06} {}", "x".repeat(200)));
        client.put(&key, &value);
        acknowledged.insert(key, value);
    }
}

/// The segments of a data folder that hold something, the oldest first.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(data_dir.join("log")).expect("a log");
    let mut files: Vec<PathBuf> = listing.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.retain(|file| {
        let number = file.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
        let content = std::fs::read(file).expect("it can be read");
        layout::number(&content) == Some(number.expect("a segment is named by its number"))
    });
    files
}

/// A copy of the log of a stopped node without the zeroes that follow its content: nobody reads them, and a thousand
/// times they take long.
fn short_copy(data_dir: &Path, copy: &Path) {
    std::fs::create_dir_all(copy.join("log")).expect("made");
    for file in segments(data_dir) {
        let mut content = std::fs::read(&file).expect("it can be read");
        content.truncate((layout::end(&content) + PAGE_SIZE).next_multiple_of(PAGE_SIZE));
        let name = file.file_name().expect("it has a name");
        std::fs::write(copy.join("log").join(name), content).expect("written");
    }
}

/// Kills a node that has been idle for long enough to have said in its log that the last batch is synced: what becomes
/// of the very last batch before that is another question, which `docs/format/log.md` answers.
fn kill_idle(cluster: &mut Cluster, node: usize) {
    std::thread::sleep(3 * LogOptions::default().prove_after);
    cluster.kill(node);
}

/// Changes a file of the copy at some places, judges the log, and puts the file back.
fn judge_change(
    whole: &Contents,
    copy: &Path,
    file: &Path,
    changes: &[(usize, &[u8])],
) -> Contents {
    let handle = OpenOptions::new().read(true).write(true).open(file).expect("it is there");
    let mut formers = Vec::new();
    for (at, bytes) in changes {
        let mut former = vec![0; bytes.len()];
        handle.read_exact_at(&mut former, *at as u64).expect("inside the file");
        handle.write_all_at(bytes, *at as u64).expect("written");
        formers.push((*at, former));
    }
    let places: Vec<usize> = changes.iter().map(|(at, _)| *at).collect();
    let what = format!("{} changed at {places:?}", file.display());
    let found = Contents::read(copy).unwrap_or_else(|error| panic!("{what}: {error}"));
    whole.check(&found).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (at, former) in formers {
        handle.write_all_at(&former, at as u64).expect("written");
    }
    let name = file.file_name().expect("it has a name").to_string_lossy();
    for report in &found.reports {
        assert!(report.file.as_str().ends_with(&*name), "{what}: {report} names the file");
        let from = report.offset.saturating_sub(PAGE_SIZE as u64);
        let told = from..report.offset + 4 * PAGE_SIZE as u64;
        let near = places.iter().any(|at| told.contains(&(*at as u64)));
        assert!(near, "{what}: {report} names the place");
    }
    found
}

/// A place in a segment whose part is drawn first, so that small parts are hit as well.
fn draw_place(random: &mut Random, content: &[u8], blocks: &[Block]) -> (&'static str, usize) {
    let draw = |random: &mut Random, fits: fn(&Block) -> bool| {
        let found: Vec<&Block> = blocks.iter().filter(|block| fits(block)).collect();
        (!found.is_empty()).then(|| *found[random.below(found.len())])
    };
    let part = random.below(7);
    let block = match part {
        // Either copy of what a batch did.
        0..=2 => draw(random, |block| matches!(block.kind, Kind::Head | Kind::Tail)),
        3 => draw(random, |block| block.kind == Kind::Head && block.bodies_size > 0),
        4 => blocks.iter().rfind(|block| block.kind == Kind::Head).copied(),
        5 => draw(random, |block| block.kind == Kind::Proof),
        _ => None,
    };
    match (part, block) {
        (0, Some(block)) => ("header", block.at + random.below(HEADER_SIZE)),
        (1, Some(block)) => ("chain", block.at + CHAIN_AT + random.below(4)),
        // The hard states and everything else that a batch does but for the entries.
        (2, Some(block)) => ("directory", block.at + HEADER_SIZE + random.below(block.items_size)),
        (3, Some(block)) => ("entry", block.bodies_at() + random.below(block.bodies_size)),
        (4, Some(block)) => ("last batch", block.at + random.below(block.total_size)),
        (5, Some(block)) => ("proof", block.at + random.below(HEADER_SIZE + block.items_size)),
        _ => ("anywhere", random.below(layout::end(content))),
    }
}

/// A cluster with a used log, and the number of a node that does not lead.
fn used_cluster() -> (Cluster, Client, Acknowledged, usize) {
    let cluster = Cluster::formed();
    let mut client = cluster.client();
    let mut acknowledged = Acknowledged::new();
    put_some(&mut client, &mut acknowledged, PUT_COUNT);
    let victim = (cluster.leader() + 1) % 3;
    wait_until_whole(&cluster, &mut client, victim, &acknowledged);
    (cluster, client, acknowledged, victim)
}

/// Waits until a node takes part without reservation, has the last put, and nothing in its log is damaged any more: what
/// it has applied is refilled without haste.
fn wait_until_whole(cluster: &Cluster, client: &mut Client, node: usize, all: &Acknowledged) {
    let (key, value) = all.last_key_value().expect("something was put");
    wait_for(&format!("n{} to be whole", node + 1), || {
        let found = client.get_at(node, key, true).ok()??;
        let status = cluster.status(node)?;
        let is_repaired = || {
            let log = Contents::read(&cluster.data_dir(node));
            log.is_ok_and(|log| log.summary.faults.is_empty())
        };
        let serves = found == *value && status["groups"][0]["why_not"].is_null();
        (serves && is_repaired()).then_some(())
    });
}

#[test]
fn a_thousand_flipped_bits_zeroed_pages_and_swapped_records_are_never_served() {
    let (mut cluster, _, _, victim) = used_cluster();
    kill_idle(&mut cluster, victim);
    let copy = cluster.scratch().join("copy");
    short_copy(&cluster.data_dir(victim), &copy);
    let whole = Contents::read(&copy).expect("nothing is wrong with it");
    assert!(whole.slots.len() >= PUT_COUNT, "{} slots", whole.slots.len());
    assert!(whole.reports.is_empty(), "{:?}", whole.reports);

    let files: Vec<(PathBuf, Vec<u8>, Vec<Block>)> = segments(&copy)
        .into_iter()
        .map(|file| {
            let content = std::fs::read(&file).expect("it can be read");
            let blocks = layout::blocks(&content);
            (file, content, blocks)
        })
        .filter(|(_, _, blocks)| !blocks.is_empty())
        .collect();
    let mut random = Random(0x5EED_0FB1_7500);
    let mut counts: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for _ in 0..FLIP_COUNT {
        let (file, content, blocks) = &files[random.below(files.len())];
        let (part, at) = draw_place(&mut random, content, blocks);
        let flipped = [content[at] ^ 1 << random.below(8)];
        let found = judge_change(&whole, &copy, file, &[(at, &flipped)]);
        let count = counts.entry(part).or_default();
        count.0 += 1;
        count.1 += u32::from(!found.reports.is_empty());
        let named =
            found.reports.iter().any(|report| report.group.is_some() && report.index.is_some());
        count.2 += u32::from(named);
    }
    let mut pages = 0;
    for (file, content, _) in &files {
        for at in (0..layout::end(content)).step_by(PAGE_SIZE) {
            judge_change(&whole, &copy, file, &[(at, &[0; PAGE_SIZE])]);
            pages += 1;
        }
    }
    let mut swaps = 0;
    for (file, content, _) in &files {
        for (one, other) in layout::twins(content) {
            let places = [
                (one.bodies_at(), other.bodies_at(), one.bodies_size),
                (one.at, other.at, one.total_size),
            ];
            for (one, other, size) in places {
                let [first, second] = [one, other].map(|at| &content[at..at + size]);
                let found = judge_change(&whole, &copy, file, &[(one, second), (other, first)]);
                assert!(!found.reports.is_empty(), "records at {one} and {other} were swapped");
                swaps += 1;
            }
        }
    }
    assert!(swaps > 0, "there are records of one size");
    println!(
        "{FLIP_COUNT} flipped bits, {pages} zeroed pages and {swaps} pairs of swapped records: \
         nothing wrong was served, nothing cut"
    );
    for (part, (flips, reported, named)) in &counts {
        println!("  {part}: {flips} flips, {reported} reported, {named} with group and index");
    }
    let (flips, reported, named) = counts["entry"];
    assert_eq!((reported, named), (flips, flips), "every entry that is damaged is named");
    for part in ["header", "chain", "directory"] {
        let (flips, reported, _) = counts[part];
        assert_eq!(reported, flips, "every {part} that is damaged is reported");
    }
}

/// Changes a segment of a stopped node, the newest in which that damages what is still of use: entries that were copied
/// forward leave their old records behind. Gives the segment, and what the log then serves.
fn damage(
    data_dir: &Path,
    whole: &Contents,
    loses_entry: bool,
    change: fn(&mut [u8]),
) -> Option<(PathBuf, Contents)> {
    for file in segments(data_dir).into_iter().rev() {
        let former = std::fs::read(&file).expect("it can be read");
        let mut content = former.clone();
        if layout::batches(&content).len() > 1 {
            change(&mut content);
        }
        std::fs::write(&file, &content).expect("written");
        let found = Contents::read(data_dir).unwrap_or_else(|error| panic!("{error}"));
        whole.check(&found).unwrap_or_else(|error| panic!("{error}"));
        let has_lost = found.slots.len() < whole.slots.len();
        if !found.reports.is_empty() && has_lost == loses_entry {
            return Some((file, found));
        }
        std::fs::write(&file, &former).expect("written");
    }
    None
}

/// The batch with entries that lies this share of the way through a segment, in percent.
fn batch_at(content: &[u8], percent: usize) -> Block {
    let batches = layout::batches(content);
    batches[(batches.len() - 1) * percent / 100]
}

/// Flips a bit in the midst of a batch's entries.
fn flip_body(content: &mut [u8], batch: Block) {
    content[batch.bodies_at() + batch.bodies_size / 2] ^= 0x10;
}

/// What is done to a segment of a stopped node, and whether an entry is lost by it, which must then be named.
type Case = (&'static str, bool, fn(&mut [u8]));

const CASES: [Case; 7] = [
    ("two swapped records", true, |content| {
        let twins = layout::twins(content);
        if let Some((one, other)) = twins.get(twins.len() / 2) {
            layout::swap(content, one.bodies_at(), other.bodies_at(), one.bodies_size);
        }
    }),
    ("a zeroed page", true, |content| {
        let page = batch_at(content, 50).at / PAGE_SIZE * PAGE_SIZE;
        content[page..page + PAGE_SIZE].fill(0);
    }),
    ("a bit of an entry", true, |content| flip_body(content, batch_at(content, 70))),
    ("a bit of the last entry", true, |content| flip_body(content, batch_at(content, 100))),
    ("a bit of a header", false, |content| content[batch_at(content, 40).at + 30] ^= 1),
    ("a bit of a chain value", false, |content| content[batch_at(content, 60).at + CHAIN_AT] ^= 2),
    ("a bit of a directory", false, |content| {
        content[batch_at(content, 30).at + HEADER_SIZE + 7] ^= 4;
    }),
];

#[test]
fn a_node_with_a_damaged_log_says_where_and_is_made_whole_by_its_peers() {
    let (mut cluster, mut client, mut acknowledged, victim) = used_cluster();
    let data_dir = cluster.data_dir(victim);
    for (number, (what, loses_entry, change)) in CASES.into_iter().enumerate() {
        if number % 2 == 0 {
            kill_idle(&mut cluster, victim);
        } else {
            cluster.node(victim).signal(Signal::TERM);
            assert_eq!(cluster.node(victim).wait(), Some(0), "{}", cluster.node(victim).log());
        }
        let whole = Contents::read(&data_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            whole.summary.faults.is_empty(),
            "{what}: not repaired: {:?}",
            whole.summary.faults
        );
        let damaged = damage(&data_dir, &whole, loses_entry, change);
        let (file, found) = damaged.unwrap_or_else(|| panic!("{what}: no segment to damage"));
        let lost = whole.slots.len() - found.slots.len();

        // Some that it must be told, then some that it takes in one by one.
        put_some(&mut client, &mut acknowledged, 5);
        cluster.start(victim);
        wait_until_whole(&cluster, &mut client, victim, &acknowledged);
        put_some(&mut client, &mut acknowledged, 20);
        wait_until_whole(&cluster, &mut client, victim, &acknowledged);
        for (key, value) in &acknowledged {
            let found = client.get_at(victim, key, true).expect("it serves");
            assert_eq!(found.as_ref(), Some(value), "{what}: {key}");
        }
        let log = cluster.node(victim).log();
        let name = format!("log/{}", file.file_name().expect("it has a name").to_string_lossy());
        let told = |part: &str| {
            let is_told =
                |line: &&str| line.contains(&format!("{name} offset ")) && line.contains(part);
            log.lines().find(is_told).map(str::to_owned)
        };
        let line = told(if loses_entry { " g0 index " } else { "" });
        let line = line.unwrap_or_else(|| panic!("{what}: {name} is not named in\n{log}"));
        let line = line.split_once("the log is damaged").map_or(&line[..], |(_, rest)| rest);
        println!("{what}: {lost} slots lost, all repaired; it said{line}");
    }
    cluster.kill(victim);
    let end = Contents::read(&data_dir).expect("it opens");
    assert!(end.summary.faults.is_empty(), "not repaired: {:?}", end.summary.faults);
}

/// Damages the latest entries of a stopped node's log that nobody else has lost yet; gives their indexes.
fn damage_another(data_dir: &Path, lost: &BTreeSet<Index>) -> BTreeSet<Index> {
    let whole = Contents::read(data_dir).expect("it opens");
    for file in segments(data_dir).into_iter().rev() {
        let former = std::fs::read(&file).expect("it can be read");
        for batch in layout::batches(&former).into_iter().rev() {
            let mut content = former.clone();
            flip_body(&mut content, batch);
            std::fs::write(&file, &content).expect("written");
            let found = Contents::read(data_dir).expect("damage is no reason to refuse");
            let missing = whole.slots.keys().filter(|index| !found.slots.contains_key(index));
            let missing: BTreeSet<Index> = missing.copied().collect();
            if !missing.is_empty() && missing.is_disjoint(lost) {
                return missing;
            }
        }
        std::fs::write(&file, &former).expect("written");
    }
    panic!("no other entry to damage in {}", data_dir.display());
}

/// Stops all nodes, damages another of the latest entries on each, starts them, and demands that all is there. Gives
/// how many entries each refilled from a peer.
fn damage_all(how: Signal) -> [usize; 3] {
    let (mut cluster, mut client, mut acknowledged, _) = used_cluster();
    put_some(&mut client, &mut acknowledged, 30);
    (0..3).for_each(|node| cluster.node(node).signal(how));
    (0..3).for_each(|node| {
        cluster.node(node).wait();
    });
    let mut lost = BTreeSet::new();
    let mut refilled = [0; 3];
    for node in 0..3 {
        let missing = damage_another(&cluster.data_dir(node), &lost);
        lost.extend(missing);
    }
    (0..3).for_each(|node| cluster.start(node));
    for node in 0..3 {
        wait_until_whole(&cluster, &mut client, node, &acknowledged);
    }
    put_some(&mut client, &mut acknowledged, 5);
    for (node, refilled) in refilled.iter_mut().enumerate() {
        wait_until_whole(&cluster, &mut client, node, &acknowledged);
        for (key, value) in &acknowledged {
            let found = client.get_at(node, key, true).expect("it serves");
            assert_eq!(found.as_ref(), Some(value), "{key} at n{}", node + 1);
        }
        let log = cluster.node(node).log();
        assert!(log.contains("the log is damaged"), "n{} says nothing:\n{log}", node + 1);
        *refilled = log.lines().filter(|line| line.contains("refilled from")).count();
    }
    // What an engine holds durably need not be repaired in the log; it is purged once a sound entry follows it there.
    let last = lost.last().expect("each node lost some").0;
    for node in 0..3 {
        wait_for("the engine to hold what follows the damage", || {
            let synced = cluster.status(node)?["groups"][0]["synced"].as_u64()?;
            (synced > last).then_some(())
        });
    }
    put_some(&mut client, &mut acknowledged, 1);
    (0..3).for_each(|node| wait_until_whole(&cluster, &mut client, node, &acknowledged));
    for node in 0..3 {
        cluster.kill(node);
        let end = Contents::read(&cluster.data_dir(node)).expect("it opens");
        assert!(end.summary.faults.is_empty(), "not repaired: {:?}", end.summary.faults);
    }
    refilled
}

/// What a killed process had applied and not handed to its engine's files is only in its log.
#[test]
fn damage_in_different_places_on_all_nodes_that_were_killed_is_repaired_and_nothing_is_lost() {
    println!("entries refilled from a peer: {:?}", damage_all(Signal::KILL));
}

/// Each node stops cleanly and so holds in its engine what is damaged in its log.
#[test]
fn damage_in_different_places_on_all_nodes_that_left_is_repaired_and_nothing_is_lost() {
    println!("entries refilled from a peer: {:?}", damage_all(Signal::TERM));
}

/// Alone it has no quorum, and what it lost must not be taken for never written when the others come.
#[test]
fn a_damaged_record_of_the_node_that_starts_first_is_repaired_and_nothing_is_lost() {
    let (mut cluster, mut client, acknowledged, victim) = used_cluster();
    (0..3).for_each(|node| cluster.kill(node));
    let missing = damage_another(&cluster.data_dir(victim), &BTreeSet::new());
    cluster.start(victim);
    cluster.node(victim).wait_for_log("the log is damaged");
    let (key, _) = acknowledged.last_key_value().expect("something was put");
    assert!(client.get_at(victim, key, false).is_err(), "one of three is no quorum");
    (0..3).filter(|node| *node != victim).for_each(|node| cluster.start(node));
    for node in 0..3 {
        wait_until_whole(&cluster, &mut client, node, &acknowledged);
        for (key, value) in &acknowledged {
            let found = client.get_at(node, key, true).expect("it serves");
            assert_eq!(found.as_ref(), Some(value), "{key} at n{}", node + 1);
        }
    }
    let log = cluster.node(victim).log();
    let line = log.lines().find(|line| line.contains("refilled from"));
    println!(
        "{missing:?} lost; {}",
        line.unwrap_or_else(|| panic!("nothing was refilled:\n{log}"))
    );
}
