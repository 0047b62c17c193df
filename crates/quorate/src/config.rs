//! Where settings come from: a flag wins over its environment variable, that over the file, that over the default.
//!
//! Each command has one struct, which is at once its flags, its variables (both through clap) and its table in the
//! file (through serde), so that the three cannot drift apart.

use crate::exit::Failure;
use crate::logging;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The longest time that a thread looks for work, in microseconds: more than that is no moment any more.
pub(crate) const SPIN_MAX: i64 = 10_000;

/// What `quorate start` is told. All optional here: what is missing may stand in the file or have a default.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct StartSettings {
    /// The name of this node, one of those in --cluster
    #[arg(long, env = "QUORATE_NAME")]
    pub(crate) name: Option<String>,
    /// The folder that holds everything this node must not lose
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The members to form a cluster of, this node among them; read only until it is formed
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "NAME=HOST:PORT,…")]
    pub(crate) cluster: Option<String>,
    /// Join a formed cluster by any of these members' peer addresses, instead of forming one; read only while the folder is empty
    #[arg(long, env = "QUORATE_JOIN", value_name = "HOST:PORT,…", conflicts_with = "cluster")]
    pub(crate) join: Option<String>,
    /// Where etcd clients connect [default: 127.0.0.1:2379]
    #[arg(long, env = "QUORATE_LISTEN_ETCD", value_name = "HOST:PORT")]
    pub(crate) listen_etcd: Option<String>,
    /// Where peers connect [default: the own entry of --cluster; with --join 127.0.0.1:2380]
    #[arg(long, env = "QUORATE_LISTEN_PEER", value_name = "HOST:PORT")]
    pub(crate) listen_peer: Option<String>,
    /// The peer address that other members are told [default: the own entry of --cluster; with --join that of --listen-peer]
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "HOST:PORT")]
    pub(crate) advertise_peer: Option<String>,
    /// The client URLs that member lists show [default: http:// and the address of --listen-etcd]
    #[arg(long, env = "QUORATE_ADVERTISE_ETCD", value_name = "URL,…")]
    pub(crate) advertise_etcd: Option<String>,
    /// Allow plaintext on addresses that other machines can reach
    #[arg(long, env = "QUORATE_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) insecure: Option<bool>,
    /// How long a thread that has run out of work looks for more before it sleeps; 0 spends the least processor time [default: 200]
    #[arg(long, env = "QUORATE_SPIN", value_name = "MICROSECONDS", value_parser = clap::value_parser!(u32).range(0..=SPIN_MAX))]
    pub(crate) spin: Option<u32>,
    /// How logs on stderr look [default: text]
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<logging::Format>,
    /// Which logs are written: a level, or directives such as info,quorate_runtime=debug [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// What `quorate dev` is told.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct DevSettings {
    /// Keep the data here instead of in a temporary folder
    #[arg(long, env = "QUORATE_DEV_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How many nodes [default: 3]
    #[arg(long, env = "QUORATE_DEV_NODES", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: Option<u8>,
    /// How logs on stderr look [default: text]
    #[arg(long, env = "QUORATE_DEV_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<logging::Format>,
    /// Which logs are written beside the live lines [default: warn]
    #[arg(long, env = "QUORATE_DEV_LOG_LEVEL", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// What every `quorate member` command is told.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct MemberSettings {
    /// The client address of a member [default: 127.0.0.1:2379]
    #[arg(long, global = true, env = "QUORATE_MEMBER_ENDPOINT", value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// How many seconds to wait for a change to come to its end, 0 not to wait [default: 60]
    #[arg(long, global = true, env = "QUORATE_MEMBER_WAIT", value_name = "SECONDS")]
    pub(crate) wait: Option<u32>,
}

/// What `quorate status` is told.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct StatusSettings {
    /// Client addresses to ask, separated by commas [default: 127.0.0.1:2379]
    #[arg(long, env = "QUORATE_STATUS_ENDPOINTS", value_name = "HOST:PORT,…")]
    pub(crate) endpoints: Option<String>,
    /// Print JSON instead of a table
    #[arg(long, env = "QUORATE_STATUS_JSON", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) json: Option<bool>,
    /// How many seconds an endpoint may take to answer [default: 3]
    #[arg(long, env = "QUORATE_STATUS_TIMEOUT", value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct File {
    /// Of `quorate start`.
    start: StartSettings,
    /// Of `quorate dev`.
    dev: DevSettings,
    /// Of `quorate status`.
    status: StatusSettings,
    /// Of `quorate member`.
    member: MemberSettings,
}

/// Settings that have a table in the file.
pub(crate) trait Settings: Serialize + DeserializeOwned {
    /// The table of these settings.
    fn table(file: File) -> Self;
    /// What holds where nothing else is said.
    fn defaults() -> Self;
}

impl Settings for StartSettings {
    fn table(file: File) -> StartSettings {
        file.start
    }

    fn defaults() -> StartSettings {
        StartSettings {
            listen_etcd: Some("127.0.0.1:2379".into()),
            insecure: Some(false),
            spin: u32::try_from(quorate_runtime::SPIN.as_micros()).ok(),
            log_format: Some(logging::Format::Text),
            log_level: Some("info".into()),
            ..StartSettings::default()
        }
    }
}

impl Settings for DevSettings {
    fn table(file: File) -> DevSettings {
        file.dev
    }

    fn defaults() -> DevSettings {
        DevSettings {
            data_dir: None,
            nodes: Some(3),
            log_format: Some(logging::Format::Text),
            log_level: Some("warn".into()),
        }
    }
}

impl Settings for MemberSettings {
    fn table(file: File) -> MemberSettings {
        file.member
    }

    fn defaults() -> MemberSettings {
        MemberSettings { endpoint: Some("127.0.0.1:2379".into()), wait: Some(60) }
    }
}

impl Settings for StatusSettings {
    fn table(file: File) -> StatusSettings {
        file.status
    }

    fn defaults() -> StatusSettings {
        StatusSettings {
            endpoints: Some("127.0.0.1:2379".into()),
            json: Some(false),
            timeout: Some(3),
        }
    }
}

/// Joins what flags and environment say with the file and the defaults.
///
/// # Errors
/// When the file cannot be read or says something unknown.
pub(crate) fn merged<S: Settings>(given: &S, file: Option<&Path>) -> Result<S, Failure> {
    let from_file = match file {
        Some(path) => Some(S::table(read(path)?)),
        None => None,
    };
    let mut table = as_table(&S::defaults());
    if let Some(settings) = &from_file {
        table.extend(as_table(settings));
    }
    table.extend(as_table(given));
    let merged = table.try_into();
    merged.map_err(|error: toml::de::Error| Failure::Usage(format!("configuration: {error}")))
}

/// What is set, by key: the writer leaves out what is not.
fn as_table<S: Settings>(settings: &S) -> toml::Table {
    toml::Table::try_from(settings).expect("settings are plain strings, numbers and flags")
}

fn read(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("cannot read the configuration {shown}: {error}"))
    })?;
    parse(&text, &shown)
}

fn parse(text: &str, shown: &dyn std::fmt::Display) -> Result<File, Failure> {
    toml::from_str(text).map_err(|error| {
        Failure::Usage(format!("configuration {shown}: {error}").trim_end().into())
    })
}

/// Takes any bytes for a file, as a fuzzer and the replay of its corpus do. What is good must be printed as a file that
/// says the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn take(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(File { start, .. }) = parse(text, &"file") else { return };
    let _ = crate::server_config::ServerConfig::new(&start);
    let again = parse(&print(&start), &"file").expect("own output");
    assert_eq!(again.start, start, "settings change by being printed");
}

/// The settings as a file that would say the same.
pub(crate) fn print(settings: &StartSettings) -> String {
    format!("[start]\n{}", as_table(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("a temporary file can be written");
        file
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = file("[start]\nname = \"from-file\"\nlog-level = \"debug\"\n");
        let given = StartSettings { name: Some("from-flag".into()), ..StartSettings::default() };
        let merged = merged(&given, Some(file.path())).expect("a good file");
        assert_eq!(merged.name.as_deref(), Some("from-flag"));
        assert_eq!(merged.log_level.as_deref(), Some("debug"));
        assert_eq!(merged.listen_etcd.as_deref(), Some("127.0.0.1:2379"));
        assert_eq!(merged.listen_peer, None);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let file = file("[start]\nnaem = \"n1\"\n");
        let Err(Failure::Usage(text)) = merged(&StartSettings::default(), Some(file.path())) else {
            panic!("an unknown key was taken");
        };
        assert!(text.contains("naem") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn the_corpus_and_mutations_of_it_are_taken_or_refused() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/config_file");
        let entries = std::fs::read_dir(folder).expect("the corpus is there");
        let mut files: Vec<Vec<u8>> = entries
            .map(|entry| std::fs::read(entry.expect("listed").path()).expect("read"))
            .collect();
        files.sort();
        assert!(files.len() >= 5, "only {} files", files.len());
        let other = files.concat();
        for file in &files {
            take(file);
            (0..300).for_each(|seed| take(&quorate_types::fuzzing::mutated(seed, file, &other)));
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let given = StartSettings { name: Some("n1".into()), ..StartSettings::default() };
        let before = merged(&given, None).expect("no file");
        let file = file(&print(&before));
        let after = merged(&StartSettings::default(), Some(file.path())).expect("own output");
        assert_eq!(after, before);
    }
}
