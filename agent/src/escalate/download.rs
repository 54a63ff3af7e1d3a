//! Owns fetching one large file by its URL, for the operator who asks for it.
//!
//! **Invariant:** no more than so many bytes are written, no more than so many redirects are followed, and
//! none from HTTPS to plain HTTP; what has come stays on disk, and the next call goes on behind it.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::redirect::Policy;
use thiserror::Error;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::http::{cause, install_provider};
use super::wire::Wire;
use crate::network::Tap;

/// Redirects followed.
const MOST_REDIRECTS: usize = 5;
/// A server that does not answer within this time is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long has stopped.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// Why a file did not come.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The URL is none.
    #[error("{0} is no URL that can be fetched: give one that begins with https:// or http://")]
    Url(String),
    /// The server refused.
    #[error("{url} answers with status {status}: check the URL")]
    Status {
        /// What was asked for.
        url: String,
        /// What it said.
        status: u16,
    },
    /// The connection broke, or never came to be.
    #[error(
        "{url} cannot be fetched: {cause}; what has come is kept, the same command goes on behind it"
    )]
    Broken {
        /// What was asked for.
        url: String,
        /// Why.
        cause: String,
    },
    /// It does not end.
    #[error("{url} is larger than {limit} bytes: it is not what it should be")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Fetches `url` into the file `to`, behind what is in it already, counted by `tap`; `progress` is told
/// the bytes that are there and how many there will be.
///
/// # Errors
/// See [`DownloadError`].
pub async fn download(
    url: &str,
    to: &Path,
    limit: u64,
    tap: Tap,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<(), DownloadError> {
    let failed = |source| DownloadError::Write { path: to.display().to_string(), source };
    let broken =
        |error: reqwest::Error| DownloadError::Broken { url: url.to_owned(), cause: cause(error) };
    let wire = Wire::new(tap, url.starts_with("https:"));
    let client = client(url, &wire)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(to)
        .await
        .map_err(failed)?;
    let mut there = file.metadata().await.map_err(failed)?.len();
    let mut request = client.get(url);
    if there > 0 {
        request = request.header(RANGE, format!("bytes={there}-"));
    }
    let request = request.build().map_err(broken)?;
    let outgoing = wire.outgoing(&request);
    let mut response = client.execute(request).await.map_err(broken)?;
    drop(outgoing);
    wire.head(&response);
    match response.status().as_u16() {
        206 if begins_at(&response) == Some(there) => {}
        200 => there = 0,
        // There is nothing behind what is there: whoever knows its digest knows whether it is whole.
        416 if there > 0 => return Ok(()),
        status => return Err(DownloadError::Status { url: url.to_owned(), status }),
    }
    start_at(&mut file, there).await.map_err(failed)?;
    let too_large = || DownloadError::TooLarge { url: url.to_owned(), limit };
    let total = response.content_length().map(|left| there.saturating_add(left));
    if total.is_some_and(|total| total > limit) {
        return Err(too_large());
    }
    loop {
        progress(there, total);
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => {
                wire.piece(response.headers(), &chunk);
                chunk
            }
            Ok(None) => return file.sync_all().await.map_err(failed),
            Err(error) => {
                // The next call goes on behind what is really there.
                file.sync_all().await.map_err(failed)?;
                return Err(broken(error));
            }
        };
        there = there.saturating_add(chunk.len() as u64);
        if there > limit {
            return Err(too_large());
        }
        file.write_all(&chunk).await.map_err(failed)?;
    }
}

fn client(url: &str, wire: &Wire) -> Result<reqwest::Client, DownloadError> {
    let address = reqwest::Url::parse(url).ok();
    let address = address.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let address = address.ok_or_else(|| DownloadError::Url(url.to_owned()))?;
    install_provider();
    let redirects = Policy::custom(|attempt| {
        let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > MOST_REDIRECTS {
            attempt.error(format!("more than {MOST_REDIRECTS} redirects"))
        } else if was_https && attempt.url().scheme() != "https" {
            attempt.error("it redirects from HTTPS to plain HTTP")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .connector_layer(wire.clone())
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(SILENT_FOR);
    if address.scheme() == "http" {
        // A board without CA certificates still fetches over plain HTTP: the digest tells what came.
        builder = builder.tls_certs_only([]);
    }
    builder
        .build()
        .map_err(|error| DownloadError::Broken { url: url.to_owned(), cause: cause(error) })
}

/// Where the part begins that the server sends.
fn begins_at(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

async fn start_at(file: &mut File, at: u64) -> std::io::Result<()> {
    file.set_len(at).await?;
    file.seek(std::io::SeekFrom::Start(at)).await?;
    Ok(())
}
