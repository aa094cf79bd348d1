//! How the process ends; `weir --help` documents the numbers.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// At run time, with nothing wrong in what was asked.
    Failed,
    /// The document or the command line.
    Wrong,
    /// For `explain`.
    NoRoute,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Wrong => 2,
            Exit::NoRoute => 3,
        })
    }
}
