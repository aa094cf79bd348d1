//! The document where it lies: read whole, with all it refers to, and what to say when it cannot be.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base::SecretRef;
use config::{Diagnostic, Disk, Files, Snapshot, Source};
use proxy::Problem;

use crate::terminal::{Ink, Paint};
use crate::watch::Fingerprint;

/// Where a document's text is.
pub enum Document {
    File(PathBuf),
    /// What came by standard input, which can be read only once.
    Stdin(String),
    /// What the binary brings along.
    Builtin(String),
}

/// What became of one reading.
pub struct Reading {
    pub result: Result<Loaded, Refused>,
    /// All that was read for it, also where it was refused: whatever is mended is in one of these.
    pub seen: Fingerprint,
}

pub struct Loaded {
    pub source: Source,
    pub snapshot: Snapshot,
    pub warnings: Vec<Diagnostic>,
}

/// Why there is no snapshot.
pub enum Refused {
    Unreadable(Unreadable),
    Wrong(Vec<Diagnostic>),
}

#[derive(Debug)]
pub struct Unreadable {
    name: String,
    error: io::Error,
}

/// The disk, and what was read of it.
struct Recorded {
    disk: Disk,
    seen: RefCell<Fingerprint>,
}

// === impl Document ===

impl Document {
    /// `-` is standard input.
    pub fn open(path: &Path) -> Result<Document, Unreadable> {
        if path != Path::new("-") {
            return Ok(Document::File(path.to_owned()));
        }
        let mut text = String::new();
        match io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(Document::Stdin(text)),
            Err(error) => Err(Unreadable { name: "standard input".into(), error }),
        }
    }

    /// `previous` is what is in force: limits that are still written so keep their counts.
    pub fn read(&self, previous: Option<&Snapshot>) -> Reading {
        let mut seen = Fingerprint::default();
        let (path, text) = match self {
            Document::Stdin(text) => (Path::new("-"), Ok(text.clone())),
            Document::Builtin(text) => (Path::new("demo.yaml"), Ok(text.clone())),
            Document::File(path) => {
                let content = std::fs::read(path);
                seen.record(path.clone(), content.as_deref().ok());
                let text = content.and_then(|bytes| {
                    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
                });
                (path.as_path(), text)
            }
        };
        let name = path.display().to_string();
        let text = match text {
            Ok(text) => text,
            Err(error) => return Reading { result: Err(Refused::Unreadable(Unreadable { name, error })), seen },
        };
        let source = Source::new(&name, text);
        let files = Recorded { disk: Disk::beside(path), seen: RefCell::new(seen) };
        let result = match config::compile(&source, &files, previous) {
            Ok((snapshot, warnings)) => Ok(Loaded { source, snapshot, warnings }),
            Err(diagnostics) => Err(Refused::Wrong(diagnostics)),
        };
        Reading { result, seen: files.seen.into_inner() }
    }

    /// Another text as if it stood in this one's place, with the same files around it.
    pub fn compile(&self, source: &Source) -> Result<Loaded, Vec<Diagnostic>> {
        let path = match self {
            Document::File(path) => path.as_path(),
            Document::Stdin(_) | Document::Builtin(_) => Path::new("-"),
        };
        let (snapshot, warnings) = config::compile(source, &Disk::beside(path), None)?;
        Ok(Loaded { source: source.clone(), snapshot, warnings })
    }
}

/// What a node says of its snapshot, in the words and at the places of the document.
pub fn locate(source: &Source, problems: &[Problem]) -> Vec<Diagnostic> {
    problems.iter().map(|problem| source.locate(&problem.at, problem.message.clone())).collect()
}

/// One below the other, as people read them.
pub fn render(diagnostics: &[Diagnostic], paint: Paint) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(paint.0) + "\n\n").collect()
}

// === impl Refused ===

impl Refused {
    pub fn render(&self, paint: Paint) -> String {
        match self {
            Refused::Unreadable(unreadable) => unreadable.render(paint),
            Refused::Wrong(diagnostics) => render(diagnostics, paint),
        }
    }

    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        match self {
            Refused::Wrong(diagnostics) => diagnostics,
            Refused::Unreadable(unreadable) => {
                let nowhere = Source::new(&unreadable.name, String::new());
                vec![nowhere.locate("", unreadable.to_string()).with_help(unreadable.help())]
            }
        }
    }
}

// === impl Unreadable ===

impl Unreadable {
    pub fn render(&self, paint: Paint) -> String {
        let (error, help) = (paint.paint(Ink::Bad, "error"), paint.paint(Ink::Heading, "help"));
        format!("{error}: {self}\n{help}: {}\n", self.help())
    }

    fn help(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::NotFound => "create one with `weir demo --print > weir.yaml`, or name the document's file",
            io::ErrorKind::PermissionDenied => "let the user that runs weir read it",
            io::ErrorKind::IsADirectory => "name the document's file, not its folder",
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "see that the file can be read, then try again",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.name, self.error)
    }
}

// === impl Recorded ===

impl Files for Recorded {
    fn read(&self, reference: &SecretRef) -> Result<Vec<u8>, String> {
        let content = self.disk.read(reference);
        if let SecretRef::File(path) = reference {
            self.seen.borrow_mut().record(self.disk.resolve(path), content.as_deref().ok());
        }
        content
    }

    fn resolve(&self, path: &str) -> PathBuf {
        self.disk.resolve(path)
    }
}
