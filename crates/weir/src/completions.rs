//! `weir completions`: the command line, told to a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit::Exit;
use crate::terminal::say;

/// Print a script that completes weir's commands in a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir completions bash > /etc/bash_completion.d/weir
  weir completions zsh > \"${fpath[1]}/_weir\"
  weir completions fish > ~/.config/fish/completions/weir.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "weir", &mut script);
    say(&String::from_utf8_lossy(&script));
    Exit::Ok
}
