//! Owns the reading of request bodies: how large one may be, and how much memory all take together.
//!
//! **Invariant:** no byte of a body is in memory without room taken for it, and the room is held for
//! as long as the request is under way.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::config::ApiConfig;

/// A body of no announced length takes room in steps of this many KiB.
const STEP_KIB: usize = 64;

/// How large a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// As `api.max_body_mib` says, in a frame of so many bytes more.
    Configured {
        /// The protocol's own bytes around it.
        frame: usize,
    },
    /// So many bytes, which are more than any right body of this call has.
    Call(usize),
}

impl Limit {
    fn bytes(self, config: &ApiConfig) -> usize {
        match self {
            Self::Configured { frame } => config.max_body_bytes.saturating_add(frame),
            Self::Call(bytes) => bytes,
        }
    }
}

/// The memory that bodies may take together, in KiB.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    all: usize,
}

/// Room that one body takes; it is free again when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<OwnedSemaphorePermit>);

impl Room {
    pub(super) fn of(config: &ApiConfig) -> Self {
        Self::with(config.max_body_memory)
    }

    /// Room of so many bytes.
    pub(crate) fn with(bytes: usize) -> Self {
        let all = bytes / 1024;
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// All there is, in bytes.
    pub(crate) fn all_bytes(&self) -> usize {
        self.all * 1024
    }

    /// What nobody has now, in bytes.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.available_permits() * 1024
    }

    /// Room for so many bytes more, if there is any now.
    pub(crate) fn try_take(&self, bytes: usize, place: &mut Place) -> bool {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok();
        let taken = kib.and_then(|kib| self.free.clone().try_acquire_many_owned(kib).ok());
        let Some(more) = taken else { return false };
        place.add(more);
        true
    }

    /// Room for so many KiB more, or all there is, waiting for it until `until`.
    async fn take(&self, kib: usize, place: &mut Place, until: Instant) -> Result<(), NoRoom> {
        let kib = u32::try_from(kib.min(self.all)).map_err(|_| NoRoom)?;
        let taken = timeout_at(until, self.free.clone().acquire_many_owned(kib)).await;
        let Ok(Ok(more)) = taken else { return Err(NoRoom) };
        place.add(more);
        Ok(())
    }
}

impl Place {
    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(place) => place.merge(more),
            None => self.0 = Some(more),
        }
    }
}

/// The other bodies did not leave room in time.
#[derive(Debug, Clone, Copy)]
struct NoRoom;

/// Why a body was not read.
enum Unread {
    NoRoom,
    TooLarge,
    Cut,
}

impl From<NoRoom> for Unread {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Reads a body within its limit whole, as soon as there is room for it; `retry_after_s` is for who
/// finds none.
pub(crate) async fn read(
    room: &Room,
    config: &ApiConfig,
    limit: Limit,
    headers: &HeaderMap,
    body: Body,
    retry_after_s: u64,
) -> Result<(Bytes, Place), Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit.bytes(config)) {
        return Err(too_large(config, limit));
    }
    let mut place = Place::default();
    if let Some(length) = declared {
        let until = Instant::now() + config.read_timeout;
        if room.take(length.div_ceil(1024), &mut place, until).await.is_err() {
            return Err(no_room(config, retry_after_s));
        }
    }
    let reading = gather(room, config, limit.bytes(config), declared, body, place);
    match timeout(config.read_timeout, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(Unread::TooLarge)) => Err(too_large(config, limit)),
        Ok(Err(Unread::NoRoom)) => Err(no_room(config, retry_after_s)),
        Ok(Err(Unread::Cut)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body_cut",
            "the body ended before its announced length; send it again",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not arrive within {:?}", config.read_timeout),
        )),
    }
}

async fn gather(
    room: &Room,
    config: &ApiConfig,
    limit: usize,
    declared: Option<usize>,
    body: Body,
    mut place: Place,
) -> Result<(Bytes, Place), Unread> {
    let mut covered = declared.unwrap_or(0);
    let mut bytes = BytesMut::with_capacity(covered);
    let mut data = body.into_data_stream();
    // A little earlier than the reading as a whole, so that it is known why it ended.
    let until = Instant::now() + config.read_timeout.mul_f64(0.9);
    while let Some(chunk) = data.next().await {
        let chunk = chunk.map_err(|_| Unread::Cut)?;
        let length = bytes.len() + chunk.len();
        if length > limit {
            return Err(Unread::TooLarge);
        }
        if length > covered {
            let kib = (length - covered).div_ceil(1024).max(STEP_KIB);
            room.take(kib, &mut place, until).await?;
            covered += kib * 1024;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes.freeze(), place))
}

fn too_large(config: &ApiConfig, limit: Limit) -> Problem {
    let detail = match limit {
        Limit::Configured { .. } => {
            let most = config.max_body_bytes;
            format!("the body is larger than the {most} bytes that api.max_body_mib allows")
        }
        Limit::Call(most) => {
            format!("the body is larger than the {most} bytes that this call takes")
        }
    };
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

fn no_room(config: &ApiConfig, retry_after_s: u64) -> Problem {
    let mib = config.max_body_memory >> 20;
    let detail = format!(
        "the bodies of other requests take the {mib} MiB that api.max_body_memory_mib allows \
         together; try again"
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(retry_after_s)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;

    use super::*;

    fn config(max_body: usize, memory: usize) -> ApiConfig {
        ApiConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            grpc_listen: None,
            max_body_bytes: max_body,
            max_body_memory: memory,
            max_concurrent: 1,
            max_connections: 1,
            max_waiting: 1,
            header_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(10),
            unix_socket: None,
            tls: None,
            require_token: false,
            hosts: Vec::new(),
            access_log: false,
        }
    }

    fn announced(length: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers
    }

    fn in_pieces(count: usize, size: usize) -> Body {
        let pieces = (0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![7; size])));
        Body::from_stream(stream::iter(pieces))
    }

    async fn read_all(
        room: &Room,
        config: &ApiConfig,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Place), Problem> {
        read(room, config, Limit::Configured { frame: 0 }, headers, body, 3).await
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_take_no_more_room_together_than_there_is() {
        let config = config(1 << 20, 1 << 20);
        let room = Room::of(&config);
        let (first, place) =
            read_all(&room, &config, &announced(700 << 10), in_pieces(7, 100 << 10)).await.unwrap();
        assert_eq!(first.len(), 700 << 10);
        for (case, headers, body) in [
            ("announced", announced(400 << 10), in_pieces(4, 100 << 10)),
            ("not announced", HeaderMap::new(), in_pieces(4, 100 << 10)),
        ] {
            let refused = read_all(&room, &config, &headers, body).await.unwrap_err();
            assert_eq!((refused.code(), refused.status()), ("busy", 503), "{case}");
        }
        // What fits beside it is read, and what waits is read as soon as there is room.
        assert!(read_all(&room, &config, &announced(9), Body::from("123456789")).await.is_ok());
        let headers = announced(400 << 10);
        let waiting = read_all(&room, &config, &headers, in_pieces(4, 100 << 10));
        let (read, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(place);
        });
        let (bytes, place) = read.unwrap();
        assert_eq!(bytes.len(), 400 << 10);
        drop(place);
        assert_eq!(room.free.available_permits(), 1024, "all room is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_or_cut_short_is_refused_and_leaves_its_room() {
        let config = config(100 << 10, 1 << 20);
        let room = Room::of(&config);
        let cut = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("cut"))]);
        let slow = stream::pending::<Result<Bytes, std::io::Error>>();
        for (case, headers, body, want) in [
            ("announced", announced(101 << 10), in_pieces(1, 1), ("body_too_large", 413)),
            ("streamed", HeaderMap::new(), in_pieces(2, 60 << 10), ("body_too_large", 413)),
            ("cut", announced(9), Body::from_stream(cut), ("body_cut", 400)),
            ("slow", announced(9), Body::from_stream(slow), ("body_too_slow", 408)),
        ] {
            let refused = read_all(&room, &config, &headers, body).await.unwrap_err();
            assert_eq!((refused.code(), refused.status()), want, "{case}");
            assert_eq!(room.free.available_permits(), 1024, "{case}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_told_the_limit_that_it_is_over() {
        let config = config(100 << 10, 1 << 20);
        let room = Room::of(&config);
        for (limit, length, want) in [
            (
                Limit::Configured { frame: 0 },
                (100 << 10) + 1,
                Some("102400 bytes that api.max_body_mib"),
            ),
            (Limit::Configured { frame: 5 }, (100 << 10) + 5, None),
            (
                Limit::Configured { frame: 5 },
                (100 << 10) + 6,
                Some("102400 bytes that api.max_body_mib"),
            ),
            (Limit::Call(7), 8, Some("7 bytes that this call takes")),
            (Limit::Call(200 << 10), 150 << 10, None),
        ] {
            let headers = announced(length);
            let read = read(&room, &config, limit, &headers, in_pieces(1, length), 3).await;
            let said = read.err().map(|problem| problem.detail().to_owned());
            match want {
                None => assert_eq!(said, None, "{limit:?} {length}"),
                Some(want) => {
                    let said = said.unwrap_or_default();
                    assert!(said.contains(want), "{limit:?} {length}: {said}");
                }
            }
        }
    }
}
