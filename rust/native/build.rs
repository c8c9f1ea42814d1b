//! Tells the build which commit it is of, so that a figure can be traced to its code.

use std::process::Command;

fn main() {
    // What HEAD names stays the same while commits go by; its log does not.
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = commit.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let commit = commit.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    println!("cargo::rustc-env=TURBOPUMP_COMMIT={}", commit.trim());
}
