//! The kinds of things that go wrong, and the families they belong to.

/// What a kind of fault concerns; a seed may leave out a whole family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultFamily {
    /// Processes and machines.
    Process,
    /// Clocks.
    Clock,
    /// Links and streams.
    Network,
    /// Disks that fail openly or are slow.
    Disk,
    /// Disks that lie, and folders that are lost.
    Damage,
    /// What operators do.
    Operator,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal in $family:ident;)*) => {
        /// One kind of thing that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $doc])+ $kind,)*
        }

        impl FaultKind {
            /// Every kind, in the order of reports.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind),*];

            /// Its name in traces and reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)*
                }
            }

            /// What it concerns.
            #[must_use]
            pub fn family(self) -> FaultFamily {
                match self {
                    $(FaultKind::$kind => FaultFamily::$family,)*
                }
            }
        }
    };
}

kinds! {
    /// A process dies, its system lives.
    Kill = "kill" in Process;
    /// One machine loses power.
    PowerLoss = "power-loss" in Process;
    /// All machines lose power at once.
    Blackout = "blackout" in Process;
    /// A process leaves cleanly and comes back.
    Restart = "restart" in Process;
    /// A process stands still.
    Pause = "pause" in Process;
    /// A process takes long for everything.
    Slow = "slow" in Process;
    /// For a while whoever comes to lead falls silent or dies within moments.
    ShortReigns = "short-reigns" in Process;
    /// A clock leaps forward.
    ClockLeap = "clock-leap" in Clock;
    /// A clock runs too fast or too slow from now on.
    ClockDrift = "clock-drift" in Clock;
    /// A machine is cut off from all others.
    Isolation = "isolation" in Network;
    /// One direction of one link is cut.
    OneWayCut = "one-way-cut" in Network;
    /// A machine hears nobody, but is heard.
    Deaf = "deaf" in Network;
    /// A machine is heard by nobody, but hears.
    Mute = "mute" in Network;
    /// The machines fall into two halves.
    Split = "split" in Network;
    /// The machines fall into two halves, with one in both.
    Bridge = "bridge" in Network;
    /// All see one machine, and otherwise nobody.
    Star = "star" in Network;
    /// Each sees its neighbours in a line.
    Chain = "chain" in Network;
    /// Each sees its neighbours in a ring.
    Ring = "ring" in Network;
    /// Frames on a machine's links are held back and arrive all at once.
    Clog = "clog" in Network;
    /// Machines are clogged one by one, and freed in another order.
    SwizzleClog = "swizzle-clog" in Network;
    /// The streams between two machines break.
    BrokenStreams = "broken-streams" in Network;
    /// A write of a disk fails.
    WriteError = "write-error" in Disk;
    /// A sync of a disk fails.
    SyncError = "sync-error" in Disk;
    /// The engine's device fails.
    EngineError = "engine-error" in Disk;
    /// A disk stands still.
    DiskStall = "disk-stall" in Disk;
    /// A disk takes long for everything.
    DiskSlow = "disk-slow" in Disk;
    /// A disk has no space left.
    DiskFull = "disk-full" in Disk;
    /// Bytes of a log change at rest.
    Rot = "rot" in Damage;
    /// A committed entry rots on every machine, a different one on each.
    HelicalRot = "helical-rot" in Damage;
    /// A page of a log cannot be read.
    ReadError = "read-error" in Damage;
    /// A write is reported done and lost.
    LostWrite = "lost-write" in Damage;
    /// A write lands elsewhere in its file.
    MisdirectedWrite = "misdirected-write" in Damage;
    /// A process dies, and its engine is lost. Never two at a time: what both have purged, nobody might hold.
    EngineLoss = "engine-loss" in Damage;
    /// A follower acknowledges what another one has not heard of, then both it and the leader crash, and its disk loses
    /// the hard state.
    HardStateLoss = "hard-state-loss" in Damage;
    /// A data folder is emptied; its node must be refused for ever.
    Wipe = "wipe" in Damage;
    /// A data folder becomes what it was before an earlier start; its node must be refused for ever.
    RollBack = "roll-back" in Damage;
    /// An operator moves leadership.
    Transfer = "transfer" in Operator;
    /// An operator makes a replica campaign.
    Campaign = "campaign" in Operator;
}

impl FaultFamily {
    /// Every family.
    pub const ALL: [FaultFamily; 6] = [
        FaultFamily::Process,
        FaultFamily::Clock,
        FaultFamily::Network,
        FaultFamily::Disk,
        FaultFamily::Damage,
        FaultFamily::Operator,
    ];
}
