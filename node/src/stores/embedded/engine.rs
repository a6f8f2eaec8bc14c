//! The files of the embedded store: the folder, its format, and the database in it. The only file that opens fjall.
//!
//! Nothing here writes conversations: that is the batcher's.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch as WriteBatch, PersistMode};
use klatch_actors::store::StoreError;
use klatch_protocol::ConversationId;

use super::batcher::Table;
use super::journal;
use super::keys::{self, End};
use crate::stores::StoreOpenError;

/// The layout of the files, as [`super::keys`] says it.
pub const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const DATABASE_FOLDER: &str = "database";

/// Blocks kept in memory; the system's own cache holds more.
const CACHE_BYTES: u64 = 128 << 20;
/// Unflushed writes of the two keyspaces that get most of them, in bytes; up to five such tables exist at a time.
const LARGE_TABLE_BYTES: u64 = 16 << 20;
const SMALL_TABLE_BYTES: u64 = 8 << 20;
/// The journal is read whole at start: this bounds how long that takes. Fjall panics below 64 MiB.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// One flushes while the other compacts; a single one lets writers wait for compactions.
const BACKGROUND_THREADS: usize = 2;

pub struct Engine {
    database: Database,
    pub log: Keyspace,
    pub ends: Keyspace,
    pub items: Keyspace,
    pub clients: Keyspace,
    pub turns: Keyspace,
    pub rows: Keyspace,
    pub records: Keyspace,
    /// Dropped last.
    _lock: File,
}

impl Engine {
    /// Opens the folder, or makes it. Whatever is wrong with it is said, and nothing is repaired.
    pub fn open(folder: &Path) -> Result<Self, StoreOpenError> {
        prepare_folder(folder)?;
        let lock = lock(folder)?;
        let found = journal::damage(&folder.join(DATABASE_FOLDER));
        let found = found.map_err(|source| StoreOpenError::Io { folder: folder.to_owned(), source })?;
        if let Some(what) = found {
            return Err(damaged(folder, what));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_database(&folder.join(DATABASE_FOLDER), lock)));
        match opened {
            Ok(Ok(engine)) => Ok(engine),
            Ok(Err(error)) => Err(open_error(folder, error)),
            Err(_) => Err(damaged(folder, "the database panicked on reading it".to_owned())),
        }
    }

    fn open_database(path: &Path, lock: File) -> fjall::Result<Self> {
        let builder = Database::builder(path).cache_size(CACHE_BYTES).worker_threads(BACKGROUND_THREADS);
        let database = builder.max_journaling_size(JOURNAL_BYTES_MAX).open()?;
        let large = || KeyspaceCreateOptions::default().max_memtable_size(LARGE_TABLE_BYTES);
        let small = || KeyspaceCreateOptions::default().max_memtable_size(SMALL_TABLE_BYTES);
        Ok(Self {
            log: database.keyspace("log", large)?,
            ends: database.keyspace("ends", || small().expect_point_read_hits(true))?,
            items: database.keyspace("items", large)?,
            clients: database.keyspace("clients", small)?,
            turns: database.keyspace("turns", small)?,
            rows: database.keyspace("rows", small)?,
            records: database.keyspace("records", small)?,
            database,
            _lock: lock,
        })
    }

    /// A batch whose commit ends with one sync of the disk.
    pub fn batch(&self) -> WriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncData))
    }

    pub fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Log => &self.log,
            Table::Items => &self.items,
            Table::Clients => &self.clients,
            Table::Turns => &self.turns,
        }
    }

    /// A point read: microseconds where it is in memory, and it is for a conversation in use.
    pub fn end(&self, conversation: ConversationId) -> Result<Option<End>, StoreError> {
        let value = self.ends.get(conversation.0).map_err(read_error)?;
        value.map(|value| keys::read_end(&value)).transpose()
    }

    /// All keyspaces as they are at one moment.
    pub fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }
}

/// What a failed read means to the caller.
pub fn read_error(error: fjall::Error) -> StoreError {
    if is_transient(&error) {
        return StoreError::Unavailable(error.to_string());
    }
    StoreError::Damaged(error.to_string())
}

fn is_transient(error: &fjall::Error) -> bool {
    use fjall::Error::{Io, KeyspaceDeleted, Locked, Poisoned, Storage};
    matches!(error, Io(_) | KeyspaceDeleted | Locked | Poisoned | Storage(LsmError::Io(_)))
}

fn open_error(folder: &Path, error: fjall::Error) -> StoreOpenError {
    let folder = folder.to_owned();
    match error {
        fjall::Error::Locked => StoreOpenError::Locked(folder),
        fjall::Error::Io(source) | fjall::Error::Storage(LsmError::Io(source)) if !is_damage(&source) => {
            StoreOpenError::Io { folder, source }
        }
        error => StoreOpenError::Damaged { folder, what: error.to_string() },
    }
}

/// A file that ends too early, or holds what it should not, is no matter of the disk's.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

fn damaged(folder: &Path, what: String) -> StoreOpenError {
    StoreOpenError::Damaged { folder: folder.to_owned(), what }
}

/// What would be wrong with opening it, where that can be seen without: nothing is made, and nothing is read but its format.
pub fn look_at(folder: &Path) -> Result<(), StoreOpenError> {
    let failed = |source| StoreOpenError::Io { folder: folder.to_owned(), source };
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => has_format(folder).and_then(|()| lock(folder).map(drop)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn has_format(folder: &Path) -> Result<(), StoreOpenError> {
    match fs::read_to_string(folder.join(FORMAT_FILE)) {
        Ok(text) => check_format(folder, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.join(DATABASE_FOLDER).exists() {
            true => Err(damaged(folder, format!("its file {FORMAT_FILE} is missing"))),
            false => Err(StoreOpenError::Foreign(folder.to_owned())),
        },
        Err(error) if is_damage(&error) => Err(damaged(folder, format!("its file {FORMAT_FILE} is no text"))),
        Err(source) => Err(StoreOpenError::Io { folder: folder.to_owned(), source }),
    }
}

/// Makes the folder where there is none, and refuses one that is not ours to write in.
fn prepare_folder(folder: &Path) -> Result<(), StoreOpenError> {
    let failed = |source| StoreOpenError::Io { folder: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_none() {
        return write_format(folder).map_err(failed);
    }
    has_format(folder)
}

/// Our own, beside the database's: journals are looked through before the database is opened, and nobody may write
/// them meanwhile.
fn lock(folder: &Path) -> Result<File, StoreOpenError> {
    let failed = |source| StoreOpenError::Io { folder: folder.to_owned(), source };
    let file = File::open(folder.join(FORMAT_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreOpenError::Locked(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn check_format(folder: &Path, text: &str) -> Result<(), StoreOpenError> {
    let found = text.trim().strip_prefix("format = ");
    match found.and_then(|found| found.parse().ok()) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => {
            Err(StoreOpenError::Newer { folder: folder.to_owned(), found: found.to_string() })
        }
        _ => Err(damaged(folder, format!("its file {FORMAT_FILE} says {:?}", text.trim()))),
    }
}

/// Whole or not at all, and before the database: a folder without it never holds conversations.
fn write_format(folder: &Path) -> io::Result<()> {
    let draft: PathBuf = folder.join(".FORMAT");
    let mut file = File::create(&draft)?;
    writeln!(file, "format = {FORMAT}")?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(FORMAT_FILE))?;
    File::open(folder)?.sync_all()
}
