//! The load generator as a program, for when there is no Python at hand:
//!
//! ```text
//! cargo run --release -p turbopump-load --example load -- /tmp/turbopump --depth 16 --prefill
//! ```
//!
//! `--json` prints what `turbopump._native.load` returns.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use turbopump_load::{Options, Report, run};

const USAGE: &str =
    "usage: load ADDRESS [--protocol resp|memcached|pipe] [--connections N] [--depth N] [--keys N]
            [--key-size BYTES] [--value-size BYTES] [--reads PERCENT] [--seconds S] [--warmup-seconds S]
            [--rate N] [--prefill] [--one-shot] [--pid PID]... [--cpu N] [--json]

ADDRESS is the path of a unix socket, or tcp://host:port on this machine.
";

fn main() -> ExitCode {
    match load(std::env::args().skip(1)) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(problem) => {
            let _ = writeln!(io::stderr(), "load: {problem}"); // there is nowhere else to say it
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: impl Iterator<Item = String>) -> Result<String, String> {
    let (options, json) = parse(arguments)?;
    let mut told = None;
    let report = run(&options, &mut |progress| {
        if told != Some(progress.stage) {
            told = Some(progress.stage);
            let _ = writeln!(io::stderr(), "{:?}", progress.stage);
        }
    });
    let report = report.map_err(|error| error.to_string())?;
    Ok(if json { in_json(&report) } else { in_words(&report) })
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Options, bool), String> {
    let (mut options, mut json) = (Options { address: String::new(), ..Options::default() }, false);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} wants a value\n{USAGE}"));
        match name.as_str() {
            "--connections" => options.connections = number(value()?)?,
            "--cpu" => options.cpu = Some(number(value()?)?),
            "--depth" => options.depth = number(value()?)?,
            "--json" => json = true,
            "--key-size" => options.key_size = number(value()?)?,
            "--keys" => options.keys = number(value()?)?,
            "--one-shot" => options.one_shot = true,
            "--pid" => options.pids.push(number(value()?)?),
            "--prefill" => options.prefill = true,
            "--protocol" => options.protocol = value()?.parse()?,
            "--rate" => options.rate = number(value()?)?,
            "--reads" => options.reads = number(value()?)?,
            "--seconds" => options.seconds = number(value()?)?,
            "--value-size" => options.value_size = number(value()?)?,
            "--warmup-seconds" => options.warmup_seconds = number(value()?)?,
            _ if options.address.is_empty() && !name.starts_with('-') => options.address = name,
            _ => return Err(format!("what is {name:?}?\n{USAGE}")),
        }
    }
    if options.address.is_empty() { Err(USAGE.to_owned()) } else { Ok((options, json)) }
}

fn number<T: FromStr>(text: String) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no such number"))
}

fn microseconds(report: &Report) -> [(&'static str, f64); 8] {
    let latency = &report.latency;
    let in_ns = [
        ("min", latency.min as f64),
        ("mean", latency.mean),
        ("p50", latency.p50 as f64),
        ("p90", latency.p90 as f64),
        ("p99", latency.p99 as f64),
        ("p99.9", latency.p999 as f64),
        ("p99.99", latency.p9999 as f64),
        ("max", latency.max as f64),
    ];
    in_ns.map(|(name, ns)| (name, ns / 1e3))
}

fn in_words(report: &Report) -> String {
    let mut text = format!("{:.0} requests/s in {:.2} s", report.rate, report.seconds);
    for (name, us) in microseconds(report) {
        text += &format!("  {name} {us:.1}");
    }
    text += &format!(" us\nmisses {} bad {} errors {}", report.misses, report.bad, report.errors);
    text += &format!(" unanswered {}, CPUs: client {:.2}", report.unanswered, report.client_cpu);
    if let (Some(us), Some(server), Some(other)) =
        (report.server_us_per_request, report.server_cpu, report.other_cpu)
    {
        text += &format!(" server {server:.2} ({us:.2} us a request) other {other:.2}");
    }
    let said = report.first_error.iter().map(|error| format!("\nthe server said: {error}"));
    text + &said.collect::<String>() + "\n"
}

fn in_json(report: &Report) -> String {
    let latency = microseconds(report).map(|(name, us)| format!("\"{name}\":{us:.3}")).join(",");
    let points =
        report.points.iter().map(|point| format!("[{},{:.3}]", point.percent, point.ns as f64 / 1e3));
    let optional = |value: Option<f64>| value.map_or("null".into(), |value| format!("{value:.4}"));
    let said = report.first_error.as_deref().map_or("null".into(), quoted);
    [
        format!("{{\"requests\":{},\"seconds\":{:.6},", report.requests, report.seconds),
        format!("\"rate\":{:.1},\"latency_us\":{{{latency}}},", report.rate),
        format!("\"percentiles\":[{}],", points.collect::<Vec<_>>().join(",")),
        format!("\"misses\":{},\"bad\":{},", report.misses, report.bad),
        format!("\"errors\":{},\"first_error\":{said},", report.errors),
        format!("\"unanswered\":{},", report.unanswered),
        format!("\"server_us_per_request\":{},", optional(report.server_us_per_request)),
        format!("\"server_cpu\":{},\"client_cpu\":{:.4},", optional(report.server_cpu), report.client_cpu),
        format!("\"other_cpu\":{}}}\n", optional(report.other_cpu)),
    ]
    .concat()
}

/// A text in JSON. What a server says may hold anything.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        ' ' | '!' | '#'..='[' | ']'..='~' => c.to_string(),
        _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
