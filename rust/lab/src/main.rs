//! The laboratory's command line.

use std::io::{Write, stderr};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let code = match turbopump_lab::run(&arguments) {
        Ok(()) => 0,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(stderr(), "turbopump-lab: {error}");
            1
        }
    };
    turbopump_lab::leave(code)
}
