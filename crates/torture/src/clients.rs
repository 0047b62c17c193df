//! Clients: each has one call under way, goes to another node when one does not serve it, and never trusts silence.
//!
//! The registers change every few seconds, so that a search for an order of the calls of one stays short; old ones are
//! still read now and then.

use crate::etcd::{self, View};
use crate::record::Recorder;
use quorate_sim::dice::Dice;
use quorate_sim::history::{Call, ClientId, Key, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// How many registers are worked on at a time.
const REGISTER_COUNT: u32 = 8;

/// For how long.
const GENERATION: Duration = Duration::from_secs(5);

/// How long a client waits before it tries another node.
const RETRY: Duration = Duration::from_millis(20);

/// Where nodes can be reached at the moment.
pub(crate) type Addresses = Arc<RwLock<Vec<String>>>;

/// All clients.
pub(crate) struct Clients {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// They begin to work.
    pub(crate) fn start(
        runtime: &tokio::runtime::Handle,
        recorder: &Arc<Recorder>,
        addresses: &Addresses,
        seed: u64,
        count: usize,
        rate: u32,
    ) -> Clients {
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for id in 0..count {
            let client = Client {
                id: ClientId(id),
                dice: Dice::new(seed ^ (id as u64 + 1) << 32, "torture client"),
                recorder: Arc::clone(recorder),
                addresses: Arc::clone(addresses),
                choice: id,
                pause: Duration::from_secs_f64(count as f64 / f64::from(rate)),
                stop: Arc::clone(&stop),
            };
            tasks.spawn_on(client.work(), runtime);
        }
        Clients { tasks, stop }
    }

    /// They finish what is under way and end.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }
}

struct Client {
    id: ClientId,
    dice: Dice,
    recorder: Arc<Recorder>,
    addresses: Addresses,
    /// Which node it goes to.
    choice: usize,
    /// How long from one call's beginning to the next one's, on average.
    pause: Duration,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn work(mut self) {
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            let begin = tokio::time::Instant::now();
            let Some(mut at) = connection.take() else {
                connection = self.connect().await;
                continue;
            };
            if self.call(&mut at).await {
                connection = Some(at);
            } else {
                self.choice += 1;
                tokio::time::sleep(RETRY).await;
            }
            // Evenly spread between none and twice the pause.
            let pause = self.dice.duration(Duration::ZERO, self.pause * 2);
            tokio::time::sleep_until(begin + pause).await;
        }
    }

    async fn connect(&mut self) -> Option<etcd::Connection> {
        let address = {
            let addresses = self.addresses.read().expect("nobody panics while writing");
            addresses[self.choice % addresses.len()].clone()
        };
        match etcd::connect(&address).await {
            Ok(channel) => Some(etcd::key_values(channel)),
            Err(_) => {
                self.choice += 1;
                tokio::time::sleep(RETRY).await;
                None
            }
        }
    }

    /// Makes one call; gives whether the node is worth another.
    async fn call(&mut self, connection: &mut etcd::Connection) -> bool {
        // Now and then to another node, so that none is without clients for long.
        if self.dice.chance(5_000) {
            self.choice = self.dice.position(64);
            return false;
        }
        let (call, view) = self.draw();
        let begun = self.recorder.begin(self.id, call);
        let answer = etcd::call(connection, call, view).await;
        let served = !matches!(answer.outcome, Outcome::Refused | Outcome::Unknown);
        let failure =
            answer.failure.map(|status| format!("{:?}: {}", status.code(), status.message()));
        let is_serializable = view == View::Serializable && !call.is_write();
        self.recorder.end(begun, is_serializable, answer.outcome, answer.epoch, failure);
        served
    }

    fn draw(&mut self) -> (Call, View) {
        let generation = self.recorder.elapsed().as_secs() / GENERATION.as_secs();
        let generation = u32::try_from(generation).expect("a run of less than 600 years");
        let register = |dice: &mut Dice| {
            u32::try_from(dice.below(u64::from(REGISTER_COUNT))).expect("a small number")
        };
        let first = generation * REGISTER_COUNT;
        let key = Key(first + register(&mut self.dice));
        let value = self.recorder.fresh_value();
        match self.dice.below(100) {
            0..20 => (Call::Get { key: self.any_key(key, generation) }, View::Linearizable),
            20..33 => (Call::Get { key: self.any_key(key, generation) }, View::Serializable),
            33..38 => (self.scan(first), View::Linearizable),
            38..42 => (self.scan(first), View::Serializable),
            42..60 => {
                let expected = match self.dice.below(10) {
                    0 => None,
                    _ => self.recorder.latest(key),
                };
                let other = Key(first + register(&mut self.dice));
                let also = (other != key && self.dice.chance(500_000))
                    .then(|| (other, self.recorder.fresh_value()));
                (Call::Swap { key, expected, value, also }, View::Linearizable)
            }
            60..65 => (Call::Delete { key }, View::Linearizable),
            _ => (Call::Put { key, value }, View::Linearizable),
        }
    }

    /// This register, or one of an earlier time: nothing old may be lost either.
    fn any_key(&mut self, key: Key, generation: u32) -> Key {
        let count = u64::from(generation * REGISTER_COUNT);
        if count > 0 && self.dice.chance(200_000) {
            return Key(u32::try_from(self.dice.below(count)).expect("below a u32"));
        }
        key
    }

    fn scan(&mut self, base: u32) -> Call {
        let [one, two] = [(); 2].map(|()| self.dice.below(u64::from(REGISTER_COUNT)));
        let at = |offset| base + u32::try_from(offset).expect("a small number");
        Call::Scan { first: Key(at(one.min(two))), end: Key(at(one.max(two) + 1)) }
    }
}
