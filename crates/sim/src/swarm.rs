//! What one seed is made of. Each seed draws its own mix: some faults often, some never (Groce et al. 2012, "Swarm
//! testing"), because a bug may need one kind of fault without another in its way.

use crate::churn::SPARE_COUNT;
use crate::dice::{Dice, PartsPerMillion};
use crate::fault_kind::{FaultFamily, FaultKind};
use crate::network::{ProcessId, Weather};
use quorate_consensus::{Limits, Timing};
use quorate_log::LogOptions;
use std::fmt;
use std::time::Duration;

/// One kind of fault and how often it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRate {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The mean time from one to the next.
    pub interval: Duration,
}

/// How long disks take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpeed {
    /// The shortest time of a request.
    pub latency_min: Duration,
    /// The longest.
    pub latency_max: Duration,
    /// How many writes take much longer.
    pub slow: PartsPerMillion,
    /// How long those take at most.
    pub slow_max: Duration,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How many clients there are.
    pub client_count: usize,
    /// How many registers they share.
    pub register_count: u32,
    /// The longest time a client thinks before its next call.
    pub think_max: Duration,
    /// How many calls follow the one before without thinking.
    pub hurry: PartsPerMillion,
    /// How many calls read one register.
    pub get: PartsPerMillion,
    /// How many read all.
    pub scan: PartsPerMillion,
    /// How many swap.
    pub swap: PartsPerMillion,
    /// How many delete.
    pub delete: PartsPerMillion,
    /// How many compact.
    pub compact: PartsPerMillion,
    /// How long a client waits for an answer, at most.
    pub patience_max: Duration,
}

/// How one process is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bounds of its replica.
    pub limits: Limits,
    /// Bounds of its log.
    pub log: LogOptions,
    /// How long things take.
    pub timing: Timing,
}

impl Settings {
    /// Draws them anew, as far as members of one cluster may differ.
    pub(crate) fn tune(&mut self, dice: &mut Dice) {
        let digest_interval = self.limits.digest_interval;
        self.limits = Limits { digest_interval, ..limits(dice) };
        self.log = log_options(dice);
        let (heartbeat, least, most) =
            pick(dice, &[(100, 500, 1_000), (50, 400, 800), (150, 600, 1_200), (100, 700, 900)]);
        self.timing = Timing {
            heartbeat_interval: Duration::from_millis(heartbeat),
            election_timeout_min: Duration::from_millis(least),
            election_timeout_max: Duration::from_millis(most),
            commit_delay: Duration::from_millis(pick(dice, &[0, 2, 20])),
        };
    }
}

/// Everything that a seed draws before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// How many processes there are.
    pub process_count: usize,
    /// What befalls frames.
    pub weather: Weather,
    /// How long disks take.
    pub disk: DiskSpeed,
    /// The longest time of one request to a state machine.
    pub machine_latency_max: Duration,
    /// The longest time from an input to the wake-up that handles it.
    pub wake_latency_max: Duration,
    /// What strikes, and how often.
    pub faults: Vec<FaultRate>,
    /// Whether faults begin before the cluster is formed.
    pub early: bool,
    /// What clients do.
    pub workload: Workload,
    /// Bounds of each process's replica and log: the same for all, or not.
    pub settings: Vec<Settings>,
    /// Whether processes start with other settings now and then.
    pub is_tuned: bool,
    /// Whether clients ask what became of calls whose outcome was unknown.
    pub settles: bool,
    /// Whether members come and go, and the mean time from one change to the next.
    pub churn: Option<Duration>,
}

/// How many seeds have five processes; the others have three.
const FIVE: PartsPerMillion = 250_000;

/// How many seeds have members that come and go.
const CHURN: PartsPerMillion = 350_000;

/// How many seeds have hard states that are lost.
const LOSS: PartsPerMillion = 250_000;

/// How many seeds have leaders that die young.
const REIGNS: PartsPerMillion = 250_000;

/// How many seeds have processes that start with other settings now and then.
const TUNED: PartsPerMillion = 250_000;

/// How many seeds have clients that ask what became of their calls.
const SETTLES: PartsPerMillion = 500_000;

/// What is drawn apart, so that earlier seeds keep their meaning.
const ADDED_LATER: [FaultKind; 2] = [FaultKind::HardStateLoss, FaultKind::ShortReigns];

/// How many families of faults a seed leaves out.
const FAMILY_LEFT_OUT: PartsPerMillion = 350_000;

/// How many kinds of the families that it does not leave out it takes.
const KIND_TAKEN: PartsPerMillion = 450_000;

/// How many seeds that would know no power loss know one: what is not synced is where most goes wrong.
const POWER_ADDED: PartsPerMillion = 650_000;

impl Mix {
    /// How the log of a process is configured.
    #[must_use]
    pub fn log(&self, process: ProcessId) -> &LogOptions {
        &self.settings[process.0].log
    }

    /// Draws a mix.
    #[must_use]
    pub fn draw(seed: u64) -> Mix {
        let mut mix = Mix::plain(seed);
        mix.add_churn(&mut Dice::new(seed, "members"));
        mix.add_loss(&mut Dice::new(seed, "loss"));
        mix.add_tuning(&mut Dice::new(seed, "tuning"));
        mix.settles = Dice::new(seed, "settles").chance(SETTLES);
        mix.add_reigns(&mut Dice::new(seed, "reigns"));
        mix
    }

    /// Hard states are lost, in some seeds.
    fn add_loss(&mut self, dice: &mut Dice) {
        if dice.chance(LOSS) {
            let interval = millis(dice, &[6_000, 12_000, 20_000]);
            self.faults.push(FaultRate { kind: FaultKind::HardStateLoss, interval });
        }
    }

    /// Leaders die young, in some seeds. In half of these each entry travels alone, so that one may arrive where the next does
    /// not.
    fn add_reigns(&mut self, dice: &mut Dice) {
        if !dice.chance(REIGNS) {
            return;
        }
        let interval = millis(dice, &[5_000, 10_000, 20_000]);
        self.faults.push(FaultRate { kind: FaultKind::ShortReigns, interval });
        if dice.chance(500_000) {
            for Settings { limits, .. } in &mut self.settings {
                limits.append_size_max = 1;
                limits.window_size_max = 1;
            }
        }
    }

    /// Each process has settings of its own and starts with others now and then, in some seeds.
    fn add_tuning(&mut self, dice: &mut Dice) {
        self.is_tuned = dice.chance(TUNED);
        if self.is_tuned {
            self.settings.iter_mut().for_each(|settings| settings.tune(dice));
        }
    }

    /// Members come and go, in some seeds.
    fn add_churn(&mut self, dice: &mut Dice) {
        if !dice.chance(CHURN) {
            return;
        }
        self.churn = Some(millis(dice, &[1_500, 4_000, 8_000]));
        let mixed = dice.chance(500_000);
        let first = self.settings[0].clone();
        for _ in 0..SPARE_COUNT {
            let mut settings = first.clone();
            if mixed {
                let digest_interval = first.limits.digest_interval;
                settings.limits = Limits { digest_interval, ..limits(dice) };
                settings.log = log_options(dice);
            }
            self.settings.push(settings);
        }
    }

    /// Draws what every version of the world draws, and nothing that was added later.
    #[must_use]
    pub fn plain(seed: u64) -> Mix {
        let mut dice = Dice::new(seed, "mix");
        let dice = &mut dice;
        let process_count = if dice.chance(FIVE) { 5 } else { 3 };
        Mix {
            process_count,
            weather: weather(dice),
            disk: disk_speed(dice),
            machine_latency_max: micros(dice, &[50, 500, 5_000]),
            wake_latency_max: micros(dice, &[5, 50, 500]),
            faults: faults(dice),
            early: dice.chance(150_000),
            workload: workload(dice),
            settings: settings(dice, process_count),
            is_tuned: false,
            settles: false,
            churn: None,
        }
    }
}

fn pick<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.position(choices.len())]
}

fn micros(dice: &mut Dice, choices: &[u64]) -> Duration {
    Duration::from_micros(pick(dice, choices))
}

fn millis(dice: &mut Dice, choices: &[u64]) -> Duration {
    Duration::from_millis(pick(dice, choices))
}

fn weather(dice: &mut Dice) -> Weather {
    if dice.chance(250_000) {
        return Weather::fair();
    }
    Weather {
        latency_min: Duration::from_micros(50),
        latency_max: micros(dice, &[200, 1_000, 5_000, 30_000]),
        loss: pick(dice, &[0, 0, 1_000, 10_000, 50_000]),
        duplication: pick(dice, &[0, 0, 10_000, 50_000]),
        delay: pick(dice, &[0, 0, 10_000, 50_000]),
        delay_max: millis(dice, &[20, 200, 3_000]),
        replay: pick(dice, &[0, 200_000, 1_000_000]),
    }
}

fn disk_speed(dice: &mut Dice) -> DiskSpeed {
    DiskSpeed {
        latency_min: Duration::from_micros(50),
        latency_max: micros(dice, &[200, 1_000, 5_000, 20_000]),
        slow: pick(dice, &[0, 1_000, 20_000]),
        slow_max: millis(dice, &[50, 500]),
    }
}

fn faults(dice: &mut Dice) -> Vec<FaultRate> {
    let mut faults = Vec::new();
    let families: Vec<FaultFamily> =
        FaultFamily::ALL.into_iter().filter(|_| !dice.chance(FAMILY_LEFT_OUT)).collect();
    let is_old = |kind: &&FaultKind| !ADDED_LATER.contains(kind);
    for kind in FaultKind::ALL.iter().filter(is_old) {
        let taken = dice.chance(KIND_TAKEN) && families.contains(&kind.family());
        let interval = millis(dice, &[6_000, 12_000, 20_000, 40_000]);
        if taken {
            faults.push(FaultRate { kind: *kind, interval });
        }
    }
    let is_cut = |rate: &FaultRate| matches!(rate.kind, FaultKind::PowerLoss | FaultKind::Blackout);
    if dice.chance(POWER_ADDED) && !faults.iter().any(is_cut) {
        faults.push(FaultRate { kind: FaultKind::PowerLoss, interval: Duration::from_secs(8) });
    }
    faults
}

fn settings(dice: &mut Dice, process_count: usize) -> Vec<Settings> {
    let first =
        Settings { limits: limits(dice), log: log_options(dice), timing: Timing::default() };
    let mixed = dice.chance(300_000);
    let mut all = vec![first; process_count];
    for settings in all.iter_mut().skip(1).filter(|_| mixed) {
        let digest_interval = settings.limits.digest_interval;
        let limits = Limits { digest_interval, ..limits(dice) };
        *settings = Settings { limits, log: log_options(dice), timing: Timing::default() };
    }
    all
}

fn workload(dice: &mut Dice) -> Workload {
    Workload {
        client_count: pick(dice, &[4, 6, 8]),
        register_count: pick(dice, &[1, 3, 10]),
        think_max: millis(dice, &[500, 800]),
        hurry: pick(dice, &[0, 100_000, 300_000]),
        get: pick(dice, &[200_000, 400_000]),
        scan: pick(dice, &[0, 50_000]),
        swap: pick(dice, &[0, 100_000, 300_000]),
        delete: pick(dice, &[0, 30_000, 60_000]),
        compact: pick(dice, &[0, 0, 10_000, 40_000]),
        patience_max: millis(dice, &[1_500, 4_000]),
    }
}

fn limits(dice: &mut Dice) -> Limits {
    let defaults = Limits::default();
    Limits {
        window_size_max: pick(dice, &[2_000, 20_000, defaults.window_size_max]),
        append_size_max: pick(dice, &[1_000, 10_000, defaults.append_size_max]),
        uncommitted_size_max: pick(dice, &[20_000, defaults.uncommitted_size_max]),
        unapplied_count_max: pick(dice, &[100, defaults.unapplied_count_max]),
        tail_size_max: pick(dice, &[1_000, 50_000, defaults.tail_size_max]),
        apply_count_max: pick(dice, &[1, 7, defaults.apply_count_max]),
        retained_count: pick(dice, &[0, 10, 100, defaults.retained_count]),
        purge_count_min: pick(dice, &[1, 10, 50]),
        digest_interval: pick(dice, &[1, 16, 64]),
    }
}

fn log_options(dice: &mut Dice) -> LogOptions {
    let segment_size = pick(dice, &[32, 64, 64, 128]) * 1024;
    LogOptions {
        segment_size,
        cache_size_max: pick(dice, &[0, 4_000, 1_000_000]),
        read_size_max: pick(dice, &[1_000, 100_000]),
        batch_size_max: pick(dice, &[2_000, 100_000]),
        reserve_count: pick(dice, &[0, 1]),
        // Some prove each batch that nothing follows at once, most when they are really idle.
        prove_after: Duration::from_millis(if segment_size == 64 * 1024 { 0 } else { 100 }),
        zero_recycled: dice.chance(500_000),
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Weather { loss, duplication, delay, replay, latency_max, delay_max, .. } = self.weather;
        let mixed = self.settings.iter().any(|settings| *settings != self.settings[0]);
        let mixed = if mixed { " of mixed settings" } else { "" };
        write!(f, "{} nodes{mixed}; ", self.process_count)?;
        write!(f, "network ≤{latency_max:?} loss={loss} twice={duplication} ")?;
        write!(f, "late={delay}≤{delay_max:?} replay={replay}; ")?;
        let DiskSpeed { latency_max, slow, slow_max, .. } = self.disk;
        write!(f, "disk ≤{latency_max:?} slow={slow}≤{slow_max:?}; ")?;
        let Workload { client_count, register_count, get, scan, swap, delete, compact, .. } =
            self.workload;
        write!(f, "{client_count} clients on {register_count} registers ")?;
        write!(f, "get={get} scan={scan} swap={swap} delete={delete} compact={compact}; faults")?;
        for FaultRate { kind, interval } in &self.faults {
            write!(f, " {}/{interval:?}", kind.name())?;
        }
        if self.is_tuned {
            f.write_str("; settings change")?;
        }
        if self.settles {
            f.write_str("; outcomes are asked for")?;
        }
        if let Some(interval) = self.churn {
            write!(f, "; members change/{interval:?}")?;
        }
        if self.early {
            f.write_str(" from the start")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_its_own_mix_and_always_the_same() {
        assert_eq!(Mix::draw(7), Mix::draw(7));
        let mixes: BTreeSet<String> = (0..50).map(|seed| Mix::draw(seed).to_string()).collect();
        assert_eq!(mixes.len(), 50);
    }

    #[test]
    fn every_fault_is_in_some_mix_and_missing_from_another() {
        for kind in FaultKind::ALL {
            let with = |seed| Mix::draw(seed).faults.iter().any(|rate| rate.kind == *kind);
            let count = (0..200).filter(|seed| with(*seed)).count();
            assert!((25..165).contains(&count), "{} is in {count} of 200 mixes", kind.name());
        }
    }
}
