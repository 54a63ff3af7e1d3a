//! The disk's limit and the other stores, behind one call: put these records durably.
//!
//! **Invariant:** when [`Engine::put`] returns, its records outlive a power cut, as far as the store's
//! authors (and for sled, our own measurements) say: every engine is set to its durable way.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;

/// The preallocated file is written round and round.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Larger values go to files that sled never syncs.
const SLED_VALUE: usize = 4096;

/// Who stores the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A preallocated file, written over, and one fdatasync.
    Limit,
    /// The same on space that was never written, as whoever keeps what it is given has to: a file that
    /// has its space, but no bytes yet, and another one when it is full.
    Fresh,
    /// sled with its own flush and an fdatasync of its file.
    Sled,
    /// redb, a durable transaction.
    Redb,
    /// fjall, a batch and a sync of its journal.
    Fjall,
}

impl Kind {
    pub(super) const PEERS: [Kind; 3] = [Kind::Sled, Kind::Redb, Kind::Fjall];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Limit => "the disk's limit",
            Kind::Fresh => "the disk's limit on fresh space",
            Kind::Sled => "sled + fdatasync",
            Kind::Redb => "redb",
            Kind::Fjall => "fjall",
        }
    }

    /// Opens an empty store in `dir`.
    pub(super) fn open(self, dir: &Path) -> anyhow::Result<Box<dyn Engine>> {
        std::fs::create_dir_all(dir)?;
        Ok(match self {
            Kind::Limit => Box::new(Limit::open(&dir.join("limit"))?),
            Kind::Fresh => Box::new(Fresh::open(dir)?),
            Kind::Sled => Box::new(Sled::open(dir)?),
            Kind::Redb => Box::new(Redb::open(&dir.join("redb"))?),
            Kind::Fjall => Box::new(Fjall::open(&dir.join("fjall"))?),
        })
    }
}

/// One record: its number and its bytes.
pub(super) type Record = (u64, Bytes);

/// A durable store.
pub(super) trait Engine: Send {
    /// Stores the records with one sync.
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()>;
}

struct Limit {
    file: File,
    at: u64,
}

impl Limit {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 1024 * 1024];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }
}

impl Engine for Limit {
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()> {
        for (_, bytes) in records {
            let len = u64::try_from(bytes.len())?;
            if self.at + len > FILE_BYTES {
                self.at = 0;
            }
            self.file.write_all_at(bytes, self.at)?;
            self.at += len;
        }
        Ok(self.file.sync_data()?)
    }
}

struct Fresh {
    dir: PathBuf,
    number: u64,
    file: File,
    at: u64,
}

impl Fresh {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { dir: dir.to_owned(), number: 0, file: Self::file(dir, 0)?, at: 0 })
    }

    fn file(dir: &Path, number: u64) -> anyhow::Result<File> {
        let file = File::create_new(dir.join(format!("fresh-{number}")))?;
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, FILE_BYTES).context("no space can be had")?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    }
}

impl Engine for Fresh {
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()> {
        for (_, bytes) in records {
            let len = u64::try_from(bytes.len())?;
            if self.at + len > FILE_BYTES {
                self.file.sync_data()?;
                self.number += 1;
                (self.file, self.at) = (Self::file(&self.dir, self.number)?, 0);
            }
            self.file.write_all_at(bytes, self.at)?;
            self.at += len;
        }
        Ok(self.file.sync_data()?)
    }
}

struct Sled {
    db: sled::Db,
    dir: PathBuf,
    file: File,
}

impl Sled {
    fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("sled");
        let db = sled::Config::new().path(&dir).flush_every_ms(None).open()?;
        let file = File::open(dir.join("db")).context("sled keeps its data elsewhere now")?;
        Ok(Self { db, dir, file })
    }
}

impl Engine for Sled {
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut batch = sled::Batch::default();
        for (number, bytes) in records {
            for (part, chunk) in bytes.chunks(SLED_VALUE).enumerate() {
                let part = u32::try_from(part)?.to_be_bytes();
                batch.insert([&number.to_be_bytes()[..], &part].concat(), chunk);
            }
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(File::open(&self.dir)?.sync_all()?)
    }
}

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("queue");

struct Redb(redb::Database);

impl Redb {
    fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(redb::Database::create(path)?))
    }
}

impl Engine for Redb {
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (number, bytes) in records {
                table.insert(number, bytes.as_ref())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

struct Fjall {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let db = fjall::Database::builder(path).open()?;
        let keyspace = db.keyspace("queue", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { db, keyspace })
    }
}

impl Engine for Fjall {
    fn put(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for (number, bytes) in records {
            batch.insert(&self.keyspace, number.to_be_bytes(), bytes.as_ref());
        }
        Ok(batch.commit()?)
    }
}
