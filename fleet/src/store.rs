//! The registry on disk: SQLite through sqlx's `any`, in SQL that PostgreSQL takes as well (TEXT, BIGINT and bytes).
//!
//! **Invariant:** when [`Store::save`] returns, what it was given is durable; a device's key is never overwritten.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{ResultReport, Up};
use holdfast_wire::sign::{LastSequence, PublicKey};
use holdfast_wire::unit::Millis;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, Row};

use crate::device::{Device, Presence};

/// Each step brings the schema one version further; a released step never changes.
/// `{bytes}` stands for the type of binary columns: BLOB in SQLite, BYTEA in PostgreSQL.
const MIGRATIONS: [&str; 3] = [
    "CREATE TABLE devices (
        id TEXT PRIMARY KEY NOT NULL,
        public_key {bytes} NOT NULL,
        first_seen BIGINT NOT NULL,
        last_seen BIGINT NOT NULL,
        sequence BIGINT NOT NULL,
        presence TEXT NOT NULL,
        presence_since BIGINT NOT NULL,
        hello {bytes} NOT NULL,
        health {bytes}
    )",
    "CREATE TABLE results (
        device TEXT NOT NULL,
        request TEXT NOT NULL,
        number BIGINT NOT NULL,
        received BIGINT NOT NULL,
        report {bytes} NOT NULL,
        PRIMARY KEY (device, request)
    )",
    "CREATE INDEX results_by_age ON results (device, received, number)",
];

/// Results kept of one device at most; beyond, those that came first are forgotten.
pub(crate) const MAX_RESULTS: usize = 1000;

/// A result that comes again changes nothing.
const SAVE_RESULT: &str = "INSERT INTO results (device, request, number, received, report)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (device, request) DO NOTHING";
const TRIM_RESULTS: &str = "DELETE FROM results WHERE device = $1 AND request NOT IN
    (SELECT request FROM results WHERE device = $1 ORDER BY received DESC, number DESC LIMIT $2)";
const NEWEST_RESULTS: &str = "SELECT received, report FROM results WHERE device = $1
    ORDER BY received DESC, number DESC LIMIT $2";

const SAVE: &str = "INSERT INTO devices
    (id, public_key, first_seen, last_seen, sequence, presence, presence_since, hello, health)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen, sequence = excluded.sequence,
    presence = excluded.presence, presence_since = excluded.presence_since, hello = excluded.hello,
    health = excluded.health";

/// Why the registry does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(
        "data directory {path} cannot be used; create it, make it writable for this user, or choose another with --data"
    )]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "data directory {path} is in use by another controller; stop that one, or choose another with --data"
    )]
    InUse { path: PathBuf },
    #[error(
        "registry {path} is damaged: {found}; restore it from a backup, or move it away to begin with an empty one \
         (devices then appear anew with whatever key they show first)"
    )]
    Damaged { path: PathBuf, found: String },
    #[error(
        "registry {path} has schema {found}, this controller knows up to {known}; use the newer controller that wrote it"
    )]
    Newer { path: PathBuf, found: usize, known: usize },
    #[error(
        "registry {path} cannot be read or written; check that the disk is not full and who owns the file"
    )]
    Database { path: PathBuf, source: sqlx::Error },
}

/// What one device reported at once.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    pub(crate) device: DeviceId,
    /// When it came, in ms since 1970-01-01 UTC.
    pub(crate) received: Millis,
    pub(crate) reports: Vec<ResultReport>,
}

/// Reads results while the intake writes.
#[derive(Clone, Debug)]
pub(crate) struct ResultReader {
    pool: AnyPool,
    path: PathBuf,
}

impl ResultReader {
    /// The newest results of a device and when they came, newest first.
    pub(crate) async fn newest(
        &self,
        device: &DeviceId,
        limit: usize,
    ) -> Result<Vec<(Millis, ResultReport)>, StoreError> {
        let rows = sqlx::query(NEWEST_RESULTS)
            .bind(device.as_str().to_owned())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(|source| failed(&self.path, source))?;
        rows.iter()
            .map(|row| {
                let path = || self.path.clone();
                result(row).map_err(|found| StoreError::Damaged { path: path(), found })
            })
            .collect()
    }
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    path: PathBuf,
    /// Held as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens the registry in a directory, or makes both.
    pub(crate) async fn open(data: &Path) -> Result<Self, StoreError> {
        let lock = lock(data)?;
        let path = data.join("registry.db");
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", percent_encoded(&path));
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect(&url)
            .await
            .map_err(|source| failed(&path, source))?;
        let store = Self { pool, path, _lock: lock };
        store.check().await?;
        store.migrate().await?;
        Ok(store)
    }

    async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA journal_mode = WAL")
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if found == "ok" {
            Ok(())
        } else {
            Err(StoreError::Damaged { path: self.path.clone(), found })
        }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let run = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)")
                .execute(&mut *transaction)
                .await?;
            let value: Option<String> =
                sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'")
                    .fetch_optional(&mut *transaction)
                    .await?;
            let found = value.and_then(|text| text.parse().ok()).unwrap_or(0);
            for step in MIGRATIONS.iter().skip(found) {
                let step = step.replace("{bytes}", "BLOB");
                sqlx::query(sqlx::AssertSqlSafe(step)).execute(&mut *transaction).await?;
            }
            if found < MIGRATIONS.len() {
                put_meta(&mut transaction, "schema", &MIGRATIONS.len().to_string()).await?;
            }
            transaction.commit().await?;
            Ok(found)
        };
        let found = run.await.map_err(|error| self.failed(error))?;
        if found > MIGRATIONS.len() {
            return Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known: MIGRATIONS.len(),
            });
        }
        Ok(())
    }

    /// Every device on record.
    pub(crate) async fn load(&self) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query("SELECT * FROM devices ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        rows.iter()
            .map(|row| {
                device(row).map_err(|found| StoreError::Damaged { path: self.path.clone(), found })
            })
            .collect()
    }

    /// For who reads results while this writes.
    pub(crate) fn results(&self) -> ResultReader {
        ResultReader { pool: self.pool.clone(), path: self.path.clone() }
    }

    /// Puts devices and their results on record, all or none.
    pub(crate) async fn save(
        &self,
        devices: &[Device],
        results: &[Results],
    ) -> Result<(), StoreError> {
        let run = async {
            let mut transaction = self.pool.begin().await?;
            for device in devices {
                save_one(&mut transaction, device).await?;
            }
            for results in results {
                save_results(&mut transaction, results).await?;
            }
            transaction.commit().await
        };
        run.await.map_err(|error| self.failed(error))
    }

    /// Takes a block of sequences that were never used: the first of `count`. The date in ms is a
    /// floor, so that a registry from a backup does not make the controller repeat numbers.
    pub(crate) async fn reserve_sequences(
        &self,
        count: u64,
        date: Millis,
    ) -> Result<u64, StoreError> {
        let run = async {
            let mut transaction = self.pool.begin().await?;
            let value: Option<String> =
                sqlx::query_scalar("SELECT value FROM meta WHERE name = 'next_sequence'")
                    .fetch_optional(&mut *transaction)
                    .await?;
            let first = value.and_then(|text| text.parse().ok()).unwrap_or(1).max(date.0);
            put_meta(&mut transaction, "next_sequence", &first.saturating_add(count).to_string())
                .await?;
            transaction.commit().await?;
            Ok(first)
        };
        run.await.map_err(|error| self.failed(error))
    }

    /// Writes what is left and closes.
    pub(crate) async fn close(self) {
        self.pool.close().await;
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        failed(&self.path, source)
    }
}

fn failed(path: &Path, source: sqlx::Error) -> StoreError {
    /// SQLITE_CORRUPT and SQLITE_NOTADB.
    const DAMAGE: [&str; 2] = ["11", "26"];
    let path = path.to_path_buf();
    match source.as_database_error() {
        Some(error) if error.code().is_some_and(|code| DAMAGE.contains(&code.as_ref())) => {
            StoreError::Damaged { path, found: error.message().to_owned() }
        }
        _ => StoreError::Database { path, source },
    }
}

fn lock(data: &Path) -> Result<File, StoreError> {
    let directory = |source| StoreError::Directory { path: data.to_path_buf(), source };
    std::fs::create_dir_all(data).map_err(directory)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(data.join("lock"))
        .map_err(directory)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: data.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(directory(source)),
    }
}

type Transaction<'a> = sqlx::Transaction<'a, sqlx::Any>;

async fn put_meta(
    transaction: &mut Transaction<'_>,
    name: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name.to_owned())
        .bind(value.to_owned())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn save_one(transaction: &mut Transaction<'_>, device: &Device) -> Result<(), sqlx::Error> {
    let encode = |message: Up| message.encode().map_err(|error| sqlx::Error::Encode(error.into()));
    let hello = encode(Up::Hello(device.hello.clone()))?;
    let health = device.health.clone().map(|health| encode(Up::Health(health))).transpose()?;
    sqlx::query(SAVE)
        .bind(device.id.as_str().to_owned())
        .bind(device.key.as_bytes().to_vec())
        .bind(number(device.first_seen.0))
        .bind(number(device.last_seen.0))
        .bind(number(device.sequence.get()))
        .bind(device.presence.text())
        .bind(number(device.presence_since.0))
        .bind(hello)
        .bind(health)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn save_results(
    transaction: &mut Transaction<'_>,
    results: &Results,
) -> Result<(), sqlx::Error> {
    let device = results.device.as_str();
    for report in &results.reports {
        let message = Up::Results(vec![report.clone()]).encode();
        let message = message.map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(SAVE_RESULT)
            .bind(device.to_owned())
            .bind(report.request.clone())
            .bind(number(report.number))
            .bind(number(results.received.0))
            .bind(message)
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query(TRIM_RESULTS)
        .bind(device.to_owned())
        .bind(i64::try_from(MAX_RESULTS).unwrap_or(i64::MAX))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// A row as a result and when it came, or what is wrong with it.
fn result(row: &AnyRow) -> Result<(Millis, ResultReport), String> {
    let read = |error: sqlx::Error| error.to_string();
    let received: i64 = row.try_get("received").map_err(read)?;
    let message: Vec<u8> = row.try_get("report").map_err(read)?;
    let wrong = || "a result cannot be read".to_owned();
    let Ok(Up::Results(reports)) = Up::decode(&message) else { return Err(wrong()) };
    let report = reports.into_iter().next().ok_or_else(wrong)?;
    Ok((Millis(u64::try_from(received).unwrap_or(0)), report))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A row as a device, or what is wrong with it.
fn device(row: &AnyRow) -> Result<Device, String> {
    let read = |error: sqlx::Error| error.to_string();
    let id: String = row.try_get("id").map_err(read)?;
    let wrong = |what: &str| format!("device {id} has an unreadable {what}");
    let date = |column: &str| -> Result<Millis, String> {
        let value: i64 = row.try_get(column).map_err(read)?;
        u64::try_from(value).map(Millis).map_err(|_| wrong(column))
    };
    let key: Vec<u8> = row.try_get("public_key").map_err(read)?;
    let hello: Vec<u8> = row.try_get("hello").map_err(read)?;
    let health: Option<Vec<u8>> = row.try_get("health").map_err(read)?;
    let presence: String = row.try_get("presence").map_err(read)?;
    let Ok(Up::Hello(hello)) = Up::decode(&hello) else { return Err(wrong("hello")) };
    let health = match health.as_deref().map(Up::decode) {
        Some(Ok(Up::Health(health))) => Some(health),
        Some(_) | None => None,
    };
    Ok(Device {
        id: DeviceId::parse(id.clone()).map_err(|_| wrong("id"))?,
        key: PublicKey::from_bytes(key.try_into().map_err(|_| wrong("public_key"))?),
        first_seen: date("first_seen")?,
        last_seen: date("last_seen")?,
        sequence: LastSequence::new(date("sequence")?.0),
        hello,
        health,
        presence: Presence::parse(&presence).ok_or_else(|| wrong("presence"))?,
        presence_since: date("presence_since")?,
        heard: Millis(0),
    })
}

/// A path as part of a URL.
fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _written = write!(text, "%{byte:02X}");
        }
        text
    })
}
