//! `quorate --version`: which code this is, and which formats it reads and writes.

use std::sync::LazyLock;

/// The commit that the binary was built from, or `unknown`.
pub(crate) const COMMIT: &str = env!("QUORATE_COMMIT");

/// The first line of `--version`, for clap.
pub(crate) static SHORT: LazyLock<String> =
    LazyLock::new(|| format!("{} (commit {COMMIT})", env!("CARGO_PKG_VERSION")));

/// All of `--version`: two binaries with the same formats can read each other's files and frames.
pub(crate) static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\nlog format {}, snapshot format {}, wire format {}, etcd API {}",
        *SHORT,
        quorate_log::FORMAT_VERSION,
        quorate_store::FORMAT_VERSION,
        quorate_types::WIRE_VERSION,
        quorate_etcd::ETCD_VERSION
    )
});
