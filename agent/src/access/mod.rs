//! Owns who may call the API, and for what.
//!
//! A caller shows a bearer token; the file of tokens has its digest, and what it is for. Where tokens are
//! not required (on loopback, unless `api.require_token` says so), who shows none, or one that is not
//! known here, is let in as before: clients of OpenAI's API always send a key. Where they
//! are required, the command line of this device shows the operator's token, which lies in the state folder
//! and is new at each start.
//!
//! **Invariant:** where tokens are required, nobody without one learns more than that the agent lives; a
//! token counts for its own grant and nothing else, and one that is revoked is refused within a second,
//! and told no more of a stream, nor the answer that it waits for.

mod caller;
mod grant;
mod pace;
mod page;
mod standing;
mod store;
mod token;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::caller::Shown;
pub use self::caller::{Caller, Peer};
pub use self::grant::{Denied, Grant};
pub(crate) use self::grant::{Need, named, need};
pub use self::pace::Place;
use self::pace::{Bucket, UnderWay};
pub(crate) use self::page::is_foreign;
pub(crate) use self::standing::Standing;
pub(crate) use self::store::path as tokens_path;
pub use self::store::{Entry, StoreError, Tokens};
use self::token::Digest;
pub use self::token::Token;
pub(crate) use self::token::bearer;
use crate::clock::Clock;
use crate::stamp::Stamp;
use crate::whole_file;

/// The file is looked at again after this time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The operator's token, in the state folder.
const OPERATOR: &str = "operator.token";
/// What the operator's token is called.
const OPERATOR_NAME: &str = "(operator)";
/// What a caller with a certificate and without a token is called.
const CERTIFIED: &str = "(certificate)";

/// Knows callers; clones are the same.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_required: bool,
    state_dir: PathBuf,
    clock: Clock,
    begun: Instant,
    /// Where no token is required, the command line needs none.
    operator: Option<(Digest, Caller)>,
    certified: Caller,
    known: Mutex<Known>,
}

/// What was last read, and what came of it since.
#[derive(Debug)]
struct Known {
    holders: Result<HashMap<Digest, Arc<Holder>>, String>,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    caller: Caller,
    expires_at_ms: Option<u64>,
    bucket: Mutex<Bucket>,
    under_way: UnderWay,
}

impl Access {
    /// Knows the callers of the agent whose state is in this folder. Where tokens are required, the
    /// operator's is written there; one that cannot be written is said in the log: then the command line
    /// has none. Blocks.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn open(state_dir: &Path, is_required: bool, clock: Clock) -> std::io::Result<Self> {
        let operator = is_required.then(|| write_operator(state_dir)).transpose()?;
        let known = Known { holders: Ok(HashMap::new()), stamp: None, looked: None };
        Ok(Self(Arc::new(Inner {
            is_required,
            state_dir: state_dir.to_owned(),
            clock,
            begun: Instant::now(),
            operator: operator.map(operator_of),
            certified: Caller::new(CERTIFIED, Shown::Certificate, Grant::default()),
            known: Mutex::new(known),
        })))
    }

    /// Who shows this token from there, with a place among its requests under way.
    ///
    /// # Errors
    /// [`Denied`]
    pub(crate) fn caller(
        &self,
        peer: Peer,
        token: Option<&str>,
    ) -> Result<(Caller, Option<Place>), Denied> {
        let inner = &*self.0;
        let Some(token) = token else {
            return inner.known_by_place(peer).map(|caller| (caller, None));
        };
        let digest = Digest::of(token);
        if let Some((_, operator)) = inner.operator.as_ref().filter(|(own, _)| *own == digest) {
            return Ok((operator.clone(), None));
        }
        match inner.holder(digest) {
            Ok(Some(holder)) => inner.admit(&holder),
            // Clients that need no token show one all the same.
            unknown => {
                let why =
                    unknown.map_or_else(|why| Denied::Unreadable { why }, |_| Denied::Unknown);
                inner.known_by_place(peer).map(|caller| (caller, None)).map_err(|_| why)
            }
        }
    }

    /// Looks after a caller that waits or is told a stream; `None`: it keeps its right as long as the agent runs.
    pub(crate) fn standing(&self, caller: Caller) -> Option<Standing> {
        let digest = caller.digest().filter(|_| self.0.is_required)?;
        let is_operator = self.0.operator.as_ref().is_some_and(|(own, _)| *own == digest);
        (!is_operator).then(|| Standing::new(self.clone(), caller))
    }

    /// Whether the token of a caller is what it was when the caller was let in. While the tokens cannot be
    /// read that is not known, and takes nothing away.
    fn still_knows(&self, caller: &Caller) -> bool {
        let Some(digest) = caller.digest() else { return true };
        let Ok(holder) = self.0.holder(digest) else { return true };
        let now_ms = self.0.clock.now_ms();
        holder.is_some_and(|holder| holder.caller == *caller && !holder.is_over(now_ms))
    }
}

impl Inner {
    /// Somebody without a token.
    fn known_by_place(&self, peer: Peer) -> Result<Caller, Denied> {
        let own = rustix::process::geteuid().as_raw();
        match peer {
            // Who may read the operator's token need not.
            Peer::Process { user } if user == 0 || user == own || !self.is_required => {
                Ok(Caller::new(format!("uid:{user}"), Shown::Process(user), Grant::all()))
            }
            Peer::Certified => Ok(self.certified.clone()),
            Peer::Process { .. } | Peer::Network if self.is_required => Err(Denied::NoToken),
            Peer::Process { .. } | Peer::Network => Ok(Caller::anybody()),
        }
    }

    fn holder(&self, digest: Digest) -> Result<Option<Arc<Holder>>, String> {
        let mut known = locked(&self.known);
        known.refresh(&self.state_dir, LOOK_EVERY);
        // One that was made a moment ago counts at once.
        if self.is_required && known.holders.as_ref().is_ok_and(|all| !all.contains_key(&digest)) {
            known.refresh(&self.state_dir, Duration::ZERO);
        }
        known.holders.as_ref().map(|holders| holders.get(&digest).cloned()).map_err(Clone::clone)
    }

    fn admit(&self, holder: &Holder) -> Result<(Caller, Option<Place>), Denied> {
        let (grant, name) = (holder.caller.grant(), || holder.caller.name().to_owned());
        if holder.is_over(self.clock.now_ms()) {
            return Err(Denied::Expired { name: name() });
        }
        let place = match grant.concurrent {
            None => None,
            Some(most) => {
                let place = holder.under_way.take(most);
                Some(place.ok_or_else(|| Denied::TooMany { name: name(), concurrent: most })?)
            }
        };
        if let Some(per_min) = grant.per_min {
            let taken = locked(&holder.bucket).take(per_min, self.begun.elapsed());
            taken.map_err(|left| {
                let retry_after_s = left.as_secs().saturating_add(1);
                Denied::TooFast { name: name(), per_min, retry_after_s }
            })?;
        }
        Ok((holder.caller.clone(), place))
    }
}

impl Holder {
    fn is_over(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|end| now_ms >= end)
    }
}

impl Known {
    /// Reads the file again if it changed and was not looked at for so long.
    fn refresh(&mut self, state_dir: &Path, after: Duration) {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now < looked + after) {
            return;
        }
        let is_first = self.looked.replace(now).is_none();
        let stamp = Stamp::of(&store::path(state_dir));
        if !is_first && stamp == self.stamp && self.holders.is_ok() {
            return;
        }
        self.stamp = stamp;
        self.holders = match Tokens::read(state_dir) {
            Ok(tokens) => Ok(self.holders_of(&tokens)),
            Err(error) => {
                let why = crate::error_chain(&error);
                if self.holders.as_ref().err() != Some(&why) {
                    tracing::error!(error = %why, "the tokens cannot be read: whoever needs one is refused");
                }
                Err(why)
            }
        };
    }

    /// The holders of these tokens; who was known before keeps what it has used.
    fn holders_of(&self, tokens: &Tokens) -> HashMap<Digest, Arc<Holder>> {
        let known = self.holders.as_ref().ok();
        let holder = |(name, entry): (&str, &Entry)| {
            let digest = Digest::from_hex(&entry.sha256)?;
            let caller = Caller::new(name, Shown::Token(digest), entry.grant.clone());
            let before = known.and_then(|known| known.get(&digest)).filter(|before| {
                before.caller == caller && before.expires_at_ms == entry.expires_at_ms
            });
            let holder = before.cloned().unwrap_or_else(|| {
                Arc::new(Holder {
                    caller,
                    expires_at_ms: entry.expires_at_ms,
                    bucket: Mutex::default(),
                    under_way: UnderWay::default(),
                })
            });
            Some((digest, holder))
        };
        tokens.iter().filter_map(holder).collect()
    }
}

fn operator_of(digest: Digest) -> (Digest, Caller) {
    (digest, Caller::new(OPERATOR_NAME, Shown::Token(digest), Grant::all()))
}

/// Writes a new operator's token; what it is known by.
fn write_operator(state_dir: &Path) -> std::io::Result<Digest> {
    let token = Token::new()?;
    let path = state_dir.join(OPERATOR);
    if let Err(error) = whole_file::write(&path, token.text().as_bytes(), 0o600) {
        tracing::warn!(path = %path.display(), %error, "the operator's token cannot be written: the command line has none");
    }
    Ok(token.digest())
}

/// The operator's token of the agent whose state is in this folder, if it can be read. Blocks.
pub fn operator_token(state_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(state_dir.join(OPERATOR)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What a holder left that panicked is plain numbers all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::request::DataClass;

    struct Device {
        dir: tempfile::TempDir,
        access: Access,
    }

    impl Device {
        fn new(is_required: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Clock::resume(dir.path());
            let access = Access::open(dir.path(), is_required, clock).unwrap();
            Self { dir, access }
        }

        fn add(&self, name: &str, grant: Grant, lasts_ms: Option<u64>) -> Token {
            let mut tokens = Tokens::read(self.dir.path()).unwrap();
            let now_ms = Clock::resume(self.dir.path()).now_ms();
            let token = tokens.add(name, grant, now_ms, lasts_ms).unwrap();
            tokens.write(self.dir.path()).unwrap();
            token
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_shows_no_token_is_let_in_only_where_none_is_required() {
        let open = Device::new(false);
        assert_eq!(open.access.caller(Peer::Network, None).unwrap().0.name(), "-");
        assert_eq!(open.access.caller(Peer::Network, Some("sk-none")).unwrap().0.name(), "-");
        let shut = Device::new(true);
        assert_eq!(shut.access.caller(Peer::Network, None).unwrap_err(), Denied::NoToken);
        assert_eq!(
            shut.access.caller(Peer::Network, Some("sk-none")).unwrap_err(),
            Denied::Unknown
        );
        let operator = operator_token(shut.dir.path()).unwrap();
        let (caller, _) = shut.access.caller(Peer::Network, Some(&operator)).unwrap();
        assert_eq!(caller.may(Need::Admin), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_counts_until_it_is_revoked_or_expires() {
        let device = Device::new(true);
        let token =
            device.add("line-7", Grant { tasks: vec!["voice".into()], ..Grant::default() }, None);
        let late = device.add("late", Grant::default(), Some(0));
        let (caller, _) = device.access.caller(Peer::Network, Some(token.text())).unwrap();
        assert_eq!((caller.name(), caller.may_ask("voice")), ("line-7", Ok(())));
        assert!(caller.may_ask("other").is_err() && caller.may(Need::Admin).is_err());
        assert_eq!(caller.may_label(DataClass::Public), Ok(()));
        let expired = device.access.caller(Peer::Network, Some(late.text())).unwrap_err();
        assert_eq!(expired, Denied::Expired { name: "late".into() });
        let mut tokens = Tokens::read(device.dir.path()).unwrap();
        tokens.revoke("line-7").unwrap();
        tokens.write(device.dir.path()).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(
            device.access.caller(Peer::Network, Some(token.text())).unwrap_err(),
            Denied::Unknown
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_lost_with_the_token_that_it_was_let_in_by() {
        let device = Device::new(true);
        let standing = |device: &Device, token: &str| {
            let (caller, _) = device.access.caller(Peer::Network, Some(token)).unwrap();
            device.access.standing(caller)
        };
        let is_lost = async |standing: &mut Standing| {
            tokio::time::sleep(LOOK_EVERY).await;
            std::future::poll_fn(|context| Poll::Ready(standing.is_lost(context))).await
        };
        let operator = operator_token(device.dir.path()).unwrap();
        assert!(standing(&device, &operator).is_none(), "it lasts as long as the agent");
        let (one, other) = ["one", "other"].map(|n| device.add(n, Grant::default(), None)).into();
        let mut one = standing(&device, one.text()).unwrap();
        let mut other = standing(&device, other.text()).unwrap();
        assert!(!is_lost(&mut one).await && !is_lost(&mut other).await);
        let mut tokens = Tokens::read(device.dir.path()).unwrap();
        std::fs::write(store::path(device.dir.path()), "{").unwrap();
        assert!(!is_lost(&mut one).await, "that it was revoked is not known");
        tokens.revoke("one").unwrap();
        tokens.write(device.dir.path()).unwrap();
        assert!(is_lost(&mut one).await);
        assert!(!is_lost(&mut other).await);
        let open = Device::new(false);
        let token = open.add("one", Grant::default(), None);
        assert!(standing(&open, token.text()).is_none(), "who shows none is let in too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_makes_nobody_another_and_nobody_is_told_by_a_certificate() {
        let device = Device::new(false);
        let identity = |peer, token: Option<&Token>| {
            let (caller, _) = device.access.caller(peer, token.map(Token::text)).unwrap();
            caller.identity()
        };
        let one = device.add("line-7", Grant::default(), None);
        let first = identity(Peer::Network, Some(&one));
        assert_eq!(identity(Peer::Certified, Some(&one)), first, "who shows a token is its holder");
        let mut tokens = Tokens::read(device.dir.path()).unwrap();
        tokens.revoke("line-7").unwrap();
        tokens.write(device.dir.path()).unwrap();
        let other = device.add("line-7", Grant::default(), None);
        let nobodys = device.add("-", Grant::default(), None);
        tokio::time::advance(LOOK_EVERY).await;
        let nobody = identity(Peer::Network, None);
        assert_eq!(identity(Peer::Network, Some(&one)), nobody, "it is nobody's any more");
        let second = identity(Peer::Network, Some(&other));
        let named = identity(Peer::Network, Some(&nobodys));
        let own = identity(Peer::Process { user: 7 }, None);
        let all = [first, second, named, own, nobody];
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        assert_eq!(identity(Peer::Certified, None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_lets_nobody_in_who_needs_a_token() {
        let device = Device::new(true);
        let token = device.add("line-7", Grant::default(), None);
        assert!(device.access.caller(Peer::Network, Some(token.text())).is_ok());
        std::fs::write(store::path(device.dir.path()), "{").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        let denied = device.access.caller(Peer::Network, Some(token.text())).unwrap_err();
        assert!(matches!(denied, Denied::Unreadable { .. }), "{denied}");
        let again = device.add_after_damage();
        tokio::time::advance(LOOK_EVERY).await;
        assert!(device.access.caller(Peer::Network, Some(again.text())).is_ok());
    }

    impl Device {
        fn add_after_damage(&self) -> Token {
            std::fs::remove_file(store::path(self.dir.path())).unwrap();
            self.add("line-8", Grant::default(), None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_has_its_limits_also_after_the_file_changed() {
        let device = Device::new(true);
        let grant = Grant { per_min: Some(2), concurrent: Some(1), ..Grant::default() };
        let token = device.add("line-7", grant, None);
        let (_, place) = device.access.caller(Peer::Network, Some(token.text())).unwrap();
        let many = device.access.caller(Peer::Network, Some(token.text())).unwrap_err();
        assert_eq!(many, Denied::TooMany { name: "line-7".into(), concurrent: 1 });
        drop(place);
        drop(device.access.caller(Peer::Network, Some(token.text())).unwrap());
        let other = device.add("other", Grant::default(), None);
        assert!(device.access.caller(Peer::Network, Some(other.text())).is_ok(), "at once");
        let fast = device.access.caller(Peer::Network, Some(token.text())).unwrap_err();
        assert_eq!(fast, Denied::TooFast { name: "line-7".into(), per_min: 2, retry_after_s: 31 });
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(device.access.caller(Peer::Network, Some(token.text())).is_ok());
    }
}
