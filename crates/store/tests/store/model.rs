//! Random histories against a model that keeps the whole state of every revision.

use crate::harness::*;
use bytes::Bytes;
use proptest::prelude::*;
use quorate_store::ReadError;
use quorate_store::etcd::*;
use quorate_types::{Committed, StateMachine};
use std::collections::BTreeMap;

type State = BTreeMap<Bytes, KeyValue>;

/// The store as its documentation describes it, without regard to speed.
struct Model {
    /// The state at the end of every revision from 1.
    states: Vec<State>,
    compacted: i64,
}

/// The state in the midst of an entry.
struct Work {
    state: State,
    /// The revision before the entry.
    begin: i64,
    changed: bool,
}

impl Work {
    fn revision(&self) -> i64 {
        self.begin + i64::from(self.changed)
    }

    fn select(&self, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
        select(&self.state, key, range_end)
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let before = self.state.get(&put.key).cloned();
        self.changed = true;
        let mut kv = before.clone().unwrap_or_else(|| KeyValue {
            key: put.key.clone(),
            create_revision: self.begin + 1,
            ..KeyValue::default()
        });
        kv.mod_revision = self.begin + 1;
        kv.version += 1;
        if !put.ignore_value {
            kv.value = put.value.clone();
        }
        self.state.insert(put.key.clone(), kv);
        PutResponse { revision: self.revision(), prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone = self.select(&delete.key, &delete.range_end);
        gone.iter().for_each(|kv| drop(self.state.remove(&kv.key)));
        self.changed |= !gone.is_empty();
        let deleted = gone.len() as i64;
        let prev_kvs = if delete.prev_kv { gone } else { Vec::new() };
        DeleteRangeResponse { revision: self.revision(), deleted, prev_kvs }
    }
}

fn select(state: &State, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
    let inside = |candidate: &Bytes| match &range_end[..] {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < range_end,
    };
    state.values().filter(|kv| inside(&kv.key)).cloned().collect()
}

impl Model {
    fn new() -> Model {
        Model { states: vec![State::new()], compacted: -1 }
    }

    fn revision(&self) -> i64 {
        self.states.len() as i64
    }

    fn work(&self) -> Work {
        let state = self.states.last().expect("revision 1").clone();
        Work { state, begin: self.revision(), changed: false }
    }

    fn range(&self, work: &Work, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        let current = work.revision();
        if request.revision > current {
            return Err(KvError::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(KvError::Compacted);
        }
        let state = match request.revision {
            revision if revision > 0 && revision < current => &self.states[revision as usize - 1],
            _ => &work.state,
        };
        let mut kvs = select(state, &request.key, &request.range_end);
        let count = kvs.len() as i64;
        if request.count_only {
            kvs.clear();
        }
        let filtered = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ]
        .iter()
        .any(|bound| *bound != 0);
        if request.limit > 0 && !filtered && request.sort_order == SortOrder::None {
            kvs.truncate(request.limit as usize + 1);
        }
        let or_max = |bound: i64| if bound == 0 { i64::MAX } else { bound };
        kvs.retain(|kv| {
            (request.min_mod_revision..=or_max(request.max_mod_revision)).contains(&kv.mod_revision)
                && (request.min_create_revision..=or_max(request.max_create_revision))
                    .contains(&kv.create_revision)
        });
        let rank = |kv: &KeyValue| match request.sort_target {
            SortTarget::Key | SortTarget::Value => 0,
            SortTarget::Version => kv.version,
            SortTarget::Create => kv.create_revision,
            SortTarget::Mod => kv.mod_revision,
        };
        kvs.sort_by_key(rank);
        if request.sort_target == SortTarget::Value {
            kvs.sort_by(|a, b| a.value.cmp(&b.value));
        }
        if request.sort_order == SortOrder::Descend {
            kvs.reverse();
        }
        let more = request.limit > 0 && kvs.len() as i64 > request.limit;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { revision: current, kvs, more, count })
    }

    fn holds(&self, work: &Work, compare: &Compare) -> bool {
        let mut kvs = work.select(&compare.key, &compare.range_end);
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let order = match &compare.target {
                CompareTarget::Version(given) => kv.version.cmp(given),
                CompareTarget::Create(given) => kv.create_revision.cmp(given),
                CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
                CompareTarget::Lease(given) => kv.lease.cmp(given),
                CompareTarget::Value(given) => kv.value.cmp(given),
            };
            match compare.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
            }
        })
    }

    /// The operations that will run, flat, and the shape to answer in.
    fn plan(&self, work: &Work, txn: &TxnRequest) -> Plan {
        let succeeded = txn.compare.iter().all(|compare| self.holds(work, compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let steps = ops
            .iter()
            .map(|op| match op {
                RequestOp::Txn(inner) => Step::Txn(self.plan(work, inner)),
                RequestOp::Range(_) | RequestOp::Put(_) | RequestOp::DeleteRange(_) => {
                    Step::Op(op.clone())
                }
            })
            .collect();
        Plan { succeeded, steps }
    }

    fn check_plan(&self, work: &Work, plan: &Plan, puts: bool) -> Result<(), KvError> {
        for step in &plan.steps {
            match step {
                Step::Txn(inner) => self.check_plan(work, inner, puts)?,
                Step::Op(RequestOp::Put(put)) if puts => {
                    if (put.ignore_value || put.ignore_lease) && !work.state.contains_key(&put.key)
                    {
                        return Err(KvError::KeyNotFound);
                    }
                }
                Step::Op(RequestOp::Range(range)) if !puts => drop(self.range(work, range)?),
                Step::Op(_) => {}
            }
        }
        Ok(())
    }

    fn run_plan(&self, work: &mut Work, plan: &Plan) -> TxnResponse {
        let mut responses = Vec::new();
        for step in &plan.steps {
            responses.push(match step {
                Step::Txn(inner) => ResponseOp::Txn(self.run_plan(work, inner)),
                Step::Op(RequestOp::Range(range)) => {
                    ResponseOp::Range(self.range(work, range).expect("checked before"))
                }
                Step::Op(RequestOp::Put(put)) => ResponseOp::Put(work.put(put)),
                Step::Op(RequestOp::DeleteRange(delete)) => {
                    ResponseOp::DeleteRange(work.delete(delete))
                }
                Step::Op(RequestOp::Txn(_)) => unreachable!("plans hold inner plans"),
            });
        }
        TxnResponse { revision: work.revision(), succeeded: plan.succeeded, responses }
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.try_apply(command).unwrap_or_else(Reply::Error)
    }

    fn try_apply(&mut self, command: &Command) -> Result<Reply, KvError> {
        check(command)?;
        let mut work = self.work();
        let reply = match command {
            Command::Put(put) => {
                if (put.ignore_value || put.ignore_lease) && !work.state.contains_key(&put.key) {
                    return Err(KvError::KeyNotFound);
                }
                Reply::Put(work.put(put))
            }
            Command::DeleteRange(delete) => Reply::DeleteRange(work.delete(delete)),
            Command::Txn(txn) => {
                let plan = self.plan(&work, txn);
                self.check_plan(&work, &plan, true)?;
                self.check_plan(&work, &plan, false)?;
                Reply::Txn(self.run_plan(&mut work, &plan))
            }
            Command::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(KvError::Compacted);
                }
                if compact.revision > self.revision() {
                    return Err(KvError::FutureRevision);
                }
                self.compacted = compact.revision;
                Reply::Compact(CompactResponse { revision: self.revision() })
            }
            Command::SetMemberAttributes(_) => Reply::SetMemberAttributes,
        };
        if work.changed {
            self.states.push(work.state);
        }
        Ok(reply)
    }
}

struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Op(RequestOp),
    Txn(Plan),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a\0", "a\0b", "b", "c", "d"]).prop_map(bytes)
}

fn span() -> impl Strategy<Value = (Bytes, Bytes)> {
    let end = prop_oneof![3 => Just(Bytes::new()), 1 => Just(bytes("\0")), 2 => key()];
    let start = prop_oneof![8 => key(), 1 => Just(bytes("\0"))];
    (start, end)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "z"]).prop_map(bytes)
}

prop_compose! {
    fn any_put()(key in key(), value in value(), prev_kv: bool, keep in 0..8_u8) -> PutRequest {
        let ignore_value = keep == 0;
        let value = if ignore_value { Bytes::new() } else { value };
        PutRequest { key, value, lease: 0, prev_kv, ignore_value, ignore_lease: keep == 1 }
    }
}

prop_compose! {
    fn any_delete()((key, range_end) in span(), prev_kv: bool) -> DeleteRangeRequest {
        DeleteRangeRequest { key, range_end, prev_kv }
    }
}

prop_compose! {
    fn any_range()(
        (key, range_end) in span(),
        limit in -1..4_i64,
        revision in prop_oneof![Just(0), 0..40_i64],
        sort_order in prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]),
        sort_target in prop::sample::select(
            vec![SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
        ),
        (keys_only, count_only) in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        bounds in prop::array::uniform4(prop_oneof![6 => Just(0), 1 => 0..20_i64]),
    ) -> RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

fn any_compare() -> impl Strategy<Value = Compare> {
    use CompareResult::*;
    let target = prop_oneof![
        (0..4_i64).prop_map(CompareTarget::Version),
        (0..20_i64).prop_map(CompareTarget::Create),
        (0..20_i64).prop_map(CompareTarget::Mod),
        (0..2_i64).prop_map(CompareTarget::Lease),
        value().prop_map(CompareTarget::Value),
    ];
    let result = prop::sample::select(vec![Equal, NotEqual, Greater, Less]);
    (span(), result, target).prop_map(|((key, range_end), result, target)| Compare {
        key,
        range_end,
        result,
        target,
    })
}

fn any_txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let leaf = prop_oneof![
        3 => any_put().prop_map(RequestOp::Put),
        2 => any_delete().prop_map(RequestOp::DeleteRange),
        3 => any_range().prop_map(RequestOp::Range),
    ];
    let op = match depth {
        0 => leaf.boxed(),
        _ => prop_oneof![4 => leaf, 1 => any_txn(depth - 1).prop_map(RequestOp::Txn)].boxed(),
    };
    let ops = prop::collection::vec(op, 0..4);
    (prop::collection::vec(any_compare(), 0..3), ops.clone(), ops)
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
        .boxed()
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_put().prop_map(Command::Put),
        2 => any_delete().prop_map(Command::DeleteRange),
        5 => any_txn(2).prop_map(Command::Txn),
        1 => (0..30_i64).prop_map(|revision| Command::Compact(CompactRequest { revision })),
    ]
}

/// What is done with the commands besides applying them one by one.
#[derive(Clone, Debug)]
struct Course {
    commands: Vec<Command>,
    /// Where batches end in the second store.
    cuts: Vec<bool>,
    ranges: Vec<RangeRequest>,
}

fn any_course() -> impl Strategy<Value = Course> {
    let commands = prop::collection::vec(any_command(), 1..60);
    (commands, prop::collection::vec(any::<bool>(), 60), prop::collection::vec(any_range(), 20))
        .prop_map(|(commands, cuts, ranges)| Course { commands, cuts, ranges })
}

/// Applies a log in batches that end where `cuts` says; the replies.
fn apply_in_batches(store: &mut TestStore, log: &[Committed], cuts: &[bool]) -> Vec<Reply> {
    let mut replies = Vec::new();
    let mut begin = 0;
    for end in 1..=log.len() {
        if end == log.len() || cuts[end % cuts.len()] {
            let batch = store.apply(&log[begin..end]).expect("memory does not fail");
            // Work that no entry waits for, sometimes.
            if cuts[(end + 1) % cuts.len()] {
                store.tend().expect("memory does not fail");
            }
            replies.extend(batch.into_iter().map(|reply| reply.expect("wanted and new")));
            begin = end;
        }
    }
    replies
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models(course in any_course()) {
        let mut model = Model::new();
        let mut client = Client::new();
        let mut replies = Vec::new();
        for (command, range) in course.commands.iter().zip(course.ranges.iter().cycle()) {
            prop_assert_eq!(&Command::decode(command.encode()), &Ok(command.clone()));
            let reply = client.run(command.clone());
            prop_assert_eq!(&reply, &model.apply(command), "{:?}", command);
            prop_assert_eq!(client.reader().revision(), (model.revision(), model.compacted));
            let expected = model.range(&model.work(), range).map_err(ReadError::Refused);
            prop_assert_eq!(client.reader().range(range), expected, "{:?}", range);
            replies.push(reply);
        }
        // However the log is cut into batches, answers, digest and every byte of state are the
        // same.
        let mut other = Client::new();
        prop_assert_eq!(apply_in_batches(&mut other.store, &client.log, &course.cuts), replies);
        prop_assert_eq!(other.store.applied(), client.store.applied());
        let chunks = stream(&mut client.store);
        prop_assert_eq!(&stream(&mut other.store), &chunks);
        // A snapshot answers as what it was taken of, also at old revisions, and goes on as it
        // would.
        let name = name_of(client.store.applied());
        let mut third = Client::new();
        prop_assert_eq!(install(&mut third.store, &name, &chunks), Ok(client.store.applied()));
        for range in &course.ranges {
            prop_assert_eq!(third.reader().range(range), client.reader().range(range), "{:?}", range);
        }
        third.log.clone_from(&client.log);
        for command in &course.commands {
            prop_assert_eq!(third.run(command.clone()), client.run(command.clone()));
        }
        prop_assert_eq!(third.store.applied(), client.store.applied());
        prop_assert_eq!(stream(&mut third.store), stream(&mut client.store));
    }

    #[test]
    fn a_crash_and_the_entries_after_it_bring_the_same_state(
        course in any_course(),
        (sync, keep) in (0..60_usize, 0..60_u64),
    ) {
        let mut client = Client::new();
        for (place, command) in course.commands.iter().enumerate() {
            client.run(command.clone());
            if place == sync {
                (client.store.syncer())().expect("memory does not fail");
            }
        }
        let (applied, chunks) = (client.store.applied(), stream(&mut client.store));
        client.disk.crash(keep);
        let mut store = open(&client.disk);
        let at = store.applied().position.index.0 as usize;
        let synced = if sync < course.commands.len() { sync + 1 } else { 0 };
        prop_assert_eq!(at, course.commands.len().min(synced + keep as usize));
        apply_in_batches(&mut store, &client.log[at..], &course.cuts);
        prop_assert_eq!(store.applied(), applied);
        prop_assert_eq!(stream(&mut store), chunks);
    }
}
