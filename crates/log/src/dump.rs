//! Prints the log files of a stopped node, one line a record, in the notation that all of Quorate shares.

use crate::batch::locations;
use crate::event::OpenError;
use crate::fetch::decode_entry;
use crate::format::{FOLDER, SegmentNumber};
use crate::item::{Item, WriteRun};
use crate::open::check_segment;
use crate::remains::{Unwritten, remains_offset};
use crate::scan::{ScannedBatch, read_file, scan};
use bytes::Bytes;
use quorate_types::{DiskReader, FileName, Index, Slot};
use std::fmt::Write;

/// The names of all files of the log, in order of their numbers.
///
/// # Errors
/// When the device fails.
pub fn files(reader: &dyn DiskReader) -> Result<Vec<FileName>, OpenError> {
    Ok(reader.list(FOLDER)?.into_iter().map(|(file, _)| file).collect())
}

/// The content of one file. Damaged places are marked `DAMAGED` with their offset.
///
/// # Errors
/// See [`OpenError`].
pub fn file(reader: &dyn DiskReader, file: &FileName) -> Result<String, OpenError> {
    let Some(number) = SegmentNumber::from_file(file) else {
        let reason = "its name is not of the form <16 hex digits>.seg";
        return Err(OpenError::Foreign { file: file.clone(), offset: 0, reason });
    };
    let sizes = reader.list(FOLDER)?;
    let size = sizes.iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
    check_segment(number, size)?;
    let content = read_file(reader, file, size)?;
    let segment = scan(&content, number, None)?;
    let mut text = String::new();
    let mut end = 0;
    let mut before = None;
    for batch in &segment.batches {
        // Between two batches that follow each other lies room that a proof took.
        let follows = before.is_none_or(|before| before == batch.header.previous_end);
        before = Some(batch.header.end());
        if batch.header.offset > end && !follows {
            line(
                &mut text,
                file,
                end,
                &format_args!("DAMAGED {} bytes", batch.header.offset - end),
            );
        }
        dump_batch(&mut text, file, &content, batch);
        end = batch.header.end();
    }
    for (proof, items) in &segment.proofs {
        let proved = format_args!("proof of batch {}", proof.batch);
        line(&mut text, file, proof.offset, &proved);
        items.iter().for_each(|item| detail(&mut text, item));
    }
    if let Unwritten::Sums(_) = Unwritten::of(&content, number) {
        line(&mut text, file, remains_offset(size), &"what an earlier life of the file left");
    }
    line(&mut text, file, end, &format_args!("end of the batches, {size} bytes in the file"));
    Ok(text)
}

fn line(text: &mut String, file: &FileName, offset: u64, what: &dyn std::fmt::Display) {
    writeln!(text, "{file}+{offset} {what}").expect("a string takes everything");
}

fn detail(text: &mut String, what: &dyn std::fmt::Display) {
    writeln!(text, "  {what}").expect("a string takes everything");
}

fn dump_batch(text: &mut String, file: &FileName, content: &Bytes, batch: &ScannedBatch) {
    let header = &batch.header;
    let opening = if header.opening { " opening" } else { "" };
    let what = format_args!(
        "batch {} synced={}{opening} after={}+{} chain={:08x} {}B",
        header.batch,
        header.synced,
        header.previous_segment,
        header.previous_end,
        header.previous_chain,
        header.total_size
    );
    line(text, file, header.offset, &what);
    if let Some(offset) = batch.bad_copy {
        detail(text, &format_args!("DAMAGED +{offset} one copy of the directory"));
    }
    let Some(items) = &batch.items else {
        detail(text, &format_args!("DAMAGED +{} both copies of the directory", header.offset));
        return;
    };
    for item in items {
        match item {
            Item::Write(run) => dump_run(text, content, batch, run),
            Item::Standing(_)
            | Item::Checkpoint(_)
            | Item::Segments(_)
            | Item::HardState(_, _)
            | Item::Truncate(_, _)
            | Item::Purge(_, _)
            | Item::Reset(_, _, _) => detail(text, item),
        }
    }
}

fn dump_run(text: &mut String, content: &Bytes, batch: &ScannedBatch, run: &WriteRun) {
    let header = &batch.header;
    let places = locations(run, header.segment, header.bodies_offset());
    for (location, index) in places.zip(run.first.0..) {
        let start = location.offset as usize;
        let bytes = content.slice(start..start + location.size as usize);
        let group = run.group;
        match decode_entry(bytes, location.check) {
            Ok(entry) => {
                let hash = entry.hash();
                let slot = Slot { index: Index(index), accepted: run.accepted, entry };
                let accepted = match slot.accepted == slot.entry.created() {
                    true => String::new(),
                    false => format!(" accepted={}", slot.accepted),
                };
                detail(text, &format_args!("{group} write({slot}{accepted}) hash={hash}"));
            }
            Err(what) => {
                let position = format_args!("{index}@{}", run.created);
                detail(text, &format_args!("{group} write({position}) DAMAGED +{start} {what}"));
            }
        }
    }
}
