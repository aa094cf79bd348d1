//! The terminal while somebody watches: a second screen, keys as they are pressed, all as it was afterwards.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// As it was, when dropped.
pub struct Screen {
    before: Termios,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    /// Ctrl-C, Ctrl-D, Escape, or nobody there any more.
    End,
}

impl Screen {
    pub fn open() -> io::Result<Screen> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        let screen = Screen { before };
        write("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Line over line, so that nothing flickers.
    pub fn draw(&mut self, text: &str) -> io::Result<()> {
        let mut out = String::from("\x1b[H");
        for line in text.lines() {
            out.push_str(line);
            out.push_str("\x1b[K\r\n");
        }
        // The last line break would scroll.
        out.truncate(out.len().saturating_sub(2));
        out.push_str("\x1b[J");
        write(&out)
    }

    /// The next key, if one comes in that time.
    pub fn key(&mut self, within: Duration) -> io::Result<Option<Key>> {
        let stdin = io::stdin();
        let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
        let ready = match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => ready,
            // A window that changes its size is told by a signal: time to draw again.
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if ready == 0 {
            return Ok(None);
        }
        let mut bytes = [0; 32];
        let read = stdin.lock().read(&mut bytes)?;
        Ok(Some(key(&bytes[..read])))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write("\x1b[?25h\x1b[?1049l");
        if io::stdin().is_terminal() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}

fn key(bytes: &[u8]) -> Key {
    match bytes {
        [] | [3 | 4 | 0x1b] => Key::End,
        [byte] => Key::Char(char::from(*byte)),
        // Arrows and the like, which do nothing.
        [0x1b, ..] => Key::Char('\0'),
        [byte, ..] => Key::Char(char::from(*byte)),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        for (bytes, expected) in [
            (&b"q"[..], Key::Char('q')),
            (b"\x1b", Key::End),
            (b"\x03", Key::End),
            (b"", Key::End),
            (b"\x1b[A", Key::Char('\0')),
        ] {
            assert_eq!(key(bytes), expected, "{bytes:?}");
        }
    }
}
