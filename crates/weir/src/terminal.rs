//! What people read: whether it may have colours, and that a closed pipe is no error.

use std::io::{self, IsTerminal, Write};

/// A colour by its meaning.
#[derive(Clone, Copy)]
pub enum Ink {
    Heading,
    Good,
    Bad,
    Dim,
}

/// Text for one stream, coloured if somebody looks at it.
#[derive(Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    pub fn stdout() -> Paint {
        Paint(may_colour() && io::stdout().is_terminal())
    }

    pub fn stderr() -> Paint {
        Paint(may_colour() && io::stderr().is_terminal())
    }

    pub fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Heading => "1",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Dim => "2",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn may_colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// To standard output. Whoever closed the pipe (`weir schema | head`) has read enough.
pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// To standard error. Nobody listening there is no reason to end a gateway, as `eprint!` would.
pub fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// An error on standard error, with what to do next.
pub fn complain(message: &str, help: &str) {
    let paint = Paint::stderr();
    let error = paint.paint(Ink::Bad, "error");
    let help_word = paint.paint(Ink::Heading, "help");
    tell(&format!("{error}: {message}\n{help_word}: {help}\n"));
}
