//! The disk does what it says, crash by crash.

use super::*;
use quorate_types::DiskId;

fn name() -> FileName {
    FileName::new("log/1")
}

fn request(op: DiskOp) -> DiskRequest {
    DiskRequest { id: DiskId(1), op }
}

fn write(offset: u64, data: &'static [u8], sync: bool) -> DiskRequest {
    let data = vec![Bytes::from_static(data)];
    request(DiskOp::Write { file: name(), offset, data, sync })
}

fn disk() -> (CrashDisk, Dice) {
    let mut disk = CrashDisk::new();
    let mut dice = Dice::new(1, "disk");
    let allocate = DiskOp::Allocate { file: name(), size: 2048 };
    let ticket = disk.submit(request(allocate));
    let done = disk.complete(ticket, Ending::Good, &mut dice);
    assert_eq!(done, Some(DiskDone { id: DiskId(1), result: Ok(DiskOutput::Done) }));
    (disk, dice)
}

fn run(disk: &mut CrashDisk, dice: &mut Dice, request: DiskRequest, ending: Ending) -> bool {
    let ticket = disk.submit(request);
    disk.complete(ticket, ending, dice).expect("no crash").result.is_ok()
}

fn content(disk: &CrashDisk, size: u64) -> Bytes {
    disk.read(&name(), 0, size).expect("it exists")
}

#[test]
fn a_kill_keeps_what_was_written_and_a_power_loss_keeps_what_was_synced() {
    let mut kept = 0;
    for seed in 0..64 {
        let (mut disk, _) = disk();
        let mut dice = Dice::new(seed, "crash");
        assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
        assert!(run(&mut disk, &mut dice, write(4, b"bbbb", false), Ending::Good));
        disk.kill(&mut dice);
        assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
        let loss = disk.lose_power(&mut dice);
        assert_eq!(loss.unsynced_size, 4);
        assert_eq!(&content(&disk, 4)[..], b"aaaa");
        kept += u64::from(&content(&disk, 8)[..] == b"aaaabbbb");
    }
    assert!((1..63).contains(&kept), "unsynced bytes stayed {kept} times of 64");
}

#[test]
fn a_sync_makes_earlier_writes_to_the_file_durable() {
    let (mut disk, mut dice) = disk();
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", false), Ending::Good));
    assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Good));
    assert_eq!(disk.unsynced_size(), 0);
    disk.lose_power(&mut dice);
    assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
}

#[test]
fn after_a_failed_sync_bytes_read_back_good_and_no_later_sync_saves_them() {
    let (mut disk, mut dice) = disk();
    assert!(!run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::SyncFailed));
    assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Good));
    assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
    disk.lose_power(&mut dice);
    assert_eq!(&content(&disk, 8)[..], b"\0\0\0\0bbbb");
}

#[test]
fn a_write_in_flight_is_torn_at_every_byte_and_in_every_sector() {
    static LONG: [u8; 1536] = [7; 1536];
    let mut sizes = std::collections::BTreeSet::new();
    let mut middle_only = 0;
    for seed in 0..400 {
        let (mut disk, _) = disk();
        let mut dice = Dice::new(seed, "crash");
        let data = vec![Bytes::from_static(&LONG)];
        disk.submit(request(DiskOp::Write { file: name(), offset: 0, data, sync: true }));
        disk.lose_power(&mut dice);
        let found = content(&disk, 1536);
        sizes.insert(found.iter().filter(|byte| **byte == 7).count());
        middle_only += u32::from(found[0] == 0 && found[600] == 7 && found[1100] == 0);
    }
    assert!(sizes.len() > 50, "only {} different sizes survived", sizes.len());
    assert!(middle_only > 0, "no crash kept a middle sector alone");
    assert!(sizes.contains(&0));
    assert!(sizes.contains(&1536));
}

#[test]
fn a_crash_takes_the_completion_with_it() {
    let (mut disk, mut dice) = disk();
    let ticket = disk.submit(write(0, b"aaaa", true));
    disk.kill(&mut dice);
    assert_eq!(disk.complete(ticket, Ending::Good, &mut dice), None);
}

#[test]
fn a_replace_is_atomic_over_a_crash() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..32 {
        let (mut disk, _) = disk();
        let mut dice = Dice::new(seed, "crash");
        let file = FileName::new("identity");
        let put = |data: &'static [u8]| {
            request(DiskOp::Replace { file: file.clone(), data: Bytes::from_static(data) })
        };
        assert!(run(&mut disk, &mut dice, put(b"old"), Ending::Good));
        disk.submit(put(b"newer"));
        disk.lose_power(&mut dice);
        seen.insert(disk.read(&file, 0, 10).expect("it exists"));
    }
    let expected = [Bytes::from_static(b"newer"), Bytes::from_static(b"old")];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn the_lie_of_a_mutant_costs_the_bytes() {
    let (mut disk, mut dice) = disk();
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Unsynced));
    assert_eq!(disk.unsynced_size(), 4);
    assert_eq!(&content(&disk.durable_image(), 4)[..], b"\0\0\0\0");
    disk.write_back(&name());
    assert_eq!(&content(&disk.durable_image(), 4)[..], b"aaaa");
}

#[test]
fn folders_list_their_own_files_only() {
    let (mut disk, mut dice) = disk();
    let replace = DiskOp::Replace { file: FileName::new("identity"), data: Bytes::new() };
    assert!(run(&mut disk, &mut dice, request(replace), Ending::Good));
    assert_eq!(disk.list(""), Ok(vec![(FileName::new("identity"), 0)]));
    assert_eq!(disk.list("log"), Ok(vec![(name(), 2048)]));
    assert_eq!(disk.list("other"), Ok(vec![]));
}

#[test]
fn a_lost_write_comes_back_at_a_crash_unless_others_followed_it() {
    for followed_count in 0..4 {
        let (mut disk, mut dice) = disk();
        assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Lost));
        assert_eq!(&content(&disk, 4)[..], b"\0\0\0\0");
        for _ in 0..followed_count {
            assert!(run(&mut disk, &mut dice, write(8, b"bbbb", true), Ending::Good));
        }
        disk.lose_power(&mut dice);
        let expected: &[u8] = if followed_count < 2 { b"aaaa" } else { b"\0\0\0\0" };
        assert_eq!(&content(&disk, 4)[..], expected, "{followed_count}");
    }
}

#[test]
fn what_is_written_elsewhere_does_not_follow_a_lost_write() {
    let (mut disk, mut dice) = disk();
    let other = FileName::new("log/2");
    let write_other = |offset| {
        let data = vec![Bytes::from_static(b"cccc")];
        request(DiskOp::Write { file: other.clone(), offset, data, sync: true })
    };
    let allocate = request(DiskOp::Allocate { file: other.clone(), size: 2048 });
    assert!(run(&mut disk, &mut dice, allocate, Ending::Good));
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Lost));
    for offset in [512, 1024, 1536] {
        assert!(run(&mut disk, &mut dice, write_other(offset), Ending::Good));
    }
    assert!(disk.is_loss_open());
    assert!(run(&mut disk, &mut dice, write(8, b"bbbb", true), Ending::Good));
    assert!(run(&mut disk, &mut dice, write_other(0), Ending::Good));
    assert!(!disk.is_loss_open(), "the stream goes on at the beginning of the next file");
}

#[test]
fn a_misdirected_write_lands_elsewhere_over_what_was_there() {
    let (mut disk, mut dice) = disk();
    assert!(run(&mut disk, &mut dice, write(100, b"bbbb", true), Ending::Good));
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Misdirected(100)));
    assert_eq!(&content(&disk, 4)[..], b"\0\0\0\0");
    assert_eq!(&content(&disk, 104)[100..], b"aaaa");
}

#[test]
fn rot_shows_at_once_and_after_a_crash_and_every_copy_can_be_found() {
    let (mut disk, mut dice) = disk();
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
    assert!(run(&mut disk, &mut dice, write(9, b"aaaa", true), Ending::Good));
    assert_eq!(disk.used("log"), vec![(name(), 13)]);
    assert_eq!(disk.rot_copies("log", b"aaaa"), 2);
    assert_eq!(&content(&disk, 4)[..], b"aaqa");
    disk.rot(&name(), 2, 1, 0x10);
    disk.lose_power(&mut dice);
    assert_eq!(&content(&disk, 13)[..], b"aaaa\0\0\0\0\0aaqa");
}

#[test]
fn a_lost_page_is_unreadable_until_it_is_written() {
    let (mut disk, mut dice) = disk();
    disk.lose_page(&name(), 1000);
    assert!(disk.read(&name(), 0, 1).is_err());
    assert!(disk.durable().read(&name(), 0, 1).is_err());
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
    assert_eq!(&content(&disk, 4)[..], b"aaaa");
}

#[test]
fn a_write_that_went_astray_ails_until_it_is_written_over() {
    let (mut disk, mut dice) = disk();
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
    assert!(!disk.is_ailing("log"));
    assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Misdirected(8)));
    assert!(disk.is_ailing("log"));
    assert!(disk.durable_image().is_ailing("log"));
    assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Good));
    assert!(!disk.is_ailing("log"));
}

#[test]
fn a_full_disk_gives_no_space_and_takes_writes() {
    let (mut disk, mut dice) = disk();
    disk.set_full(true);
    let allocate = || request(DiskOp::Allocate { file: FileName::new("log/2"), size: 9 });
    assert!(!run(&mut disk, &mut dice, allocate(), Ending::Good));
    assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
    disk.set_full(false);
    assert!(run(&mut disk, &mut dice, allocate(), Ending::Good));
}
