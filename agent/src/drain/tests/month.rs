//! A month of a device's life in seconds: links that come and go, destinations that throttle, fail,
//! hang and lose answers, money that runs out, dates that jump, agents that are stopped and killed,
//! machines that are switched off.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::{Act, DATE_MS, Device, Held, Seen, World, destination};
use crate::destination::{Destination, Limits, Zone};
use crate::envelope::Final;
use crate::escalate::scripted::Called;
use crate::queue::{RequestId, State, Summary};
use crate::request::{DataClass, TaskName};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;

const SITE_PER_MIN: u64 = 20;
const CLOUD_PER_MIN: u64 = 6;
const PRICE: u64 = 2_500;
const BUDGET: u64 = 100_000;
const PLACES: usize = 4;
/// A destination that fails on everybody is asked no more often, after a while.
const LEAST_REST: Duration = Duration::from_secs(15 * 60 / 2);

/// Chance that can be had again: xorshift.
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn span(&mut self, from: Duration, to: Duration) -> Duration {
        let millis = u64::try_from((to - from).as_millis()).unwrap();
        from + Duration::from_millis(self.below(millis.max(1)))
    }
}

/// One destination's way with the world.
#[derive(Debug)]
struct Line {
    is_up: bool,
    /// How this outage looks: refused, or silent.
    is_refused: bool,
    changes_at: Instant,
}

/// What the destinations do.
struct Weather {
    chance: Chance,
    lines: HashMap<String, Line>,
    poison: Arc<Mutex<HashSet<String>>>,
    is_calm: Arc<Mutex<bool>>,
    outages: Arc<Mutex<u64>>,
}

impl Weather {
    fn act(&mut self, host: &str, call: &Called) -> Act {
        let is_calm = *self.is_calm.lock().unwrap();
        if !is_calm && !self.is_up(host) {
            let is_refused = self.lines[host].is_refused;
            return if is_refused { Act::Nobody } else { Act::Silent };
        }
        let key = call.header("idempotency-key").unwrap_or_default();
        if self.poison.lock().unwrap().contains(key) {
            return Act::Status(500, None);
        }
        let millis = self.chance.span(Duration::from_millis(20), Duration::from_secs(3));
        if is_calm || call.is_probe {
            return Act::Answer(millis);
        }
        match self.chance.below(100) {
            0..3 => Act::Status(429, Some(Duration::from_secs(self.chance.below(30)))),
            3..5 => Act::Status(503, None),
            5..7 => Act::Status(500, None),
            7..9 => Act::Cut,
            9 => Act::Silent,
            _ => Act::Answer(millis),
        }
    }

    fn is_up(&mut self, host: &str) -> bool {
        let chance = &mut self.chance;
        let now = Instant::now();
        let line = self.lines.entry(host.to_owned()).or_insert_with(|| Line {
            is_up: true,
            is_refused: true,
            changes_at: now,
        });
        while line.changes_at <= now {
            line.is_up = !line.is_up;
            line.is_refused = chance.once_in(2);
            let longest = match (line.is_up, chance.below(8)) {
                (true, _) => 12 * 60 * MINUTE,
                (false, 0) => 2 * DAY,
                (false, _) => 3 * 60 * MINUTE,
            };
            line.changes_at += chance.span(MINUTE, longest);
            if !line.is_up {
                *self.outages.lock().unwrap() += 1;
            }
        }
        line.is_up
    }
}

/// A request as the test remembers it.
#[derive(Debug)]
struct Asked {
    held: Held,
    accepted_ms: u64,
    accepted: Instant,
}

struct Month {
    seed: u64,
    chance: Chance,
    device: Device,
    world: World,
    asked: HashMap<RequestId, Asked>,
    poison: Arc<Mutex<HashSet<String>>>,
    is_calm: Arc<Mutex<bool>>,
    outages: Arc<Mutex<u64>>,
    /// When the agent was started, each time.
    starts: Vec<Instant>,
    /// The count and the truth at the beginning.
    begun: (u64, Instant),
    appended: u64,
}

fn destinations() -> Vec<Destination> {
    let task = |name| TaskName::parse(name).unwrap();
    let mut site = destination("site", Zone::Site, PLACES);
    site.tasks = vec![task("voice-commands")];
    site.limits = Limits { requests_per_min: Some(SITE_PER_MIN), ..Limits::default() };
    let mut cloud = destination("cloud", Zone::Public, PLACES);
    cloud.tasks = vec![task("voice-commands"), task("part-inspection")];
    cloud.limits = Limits {
        requests_per_min: Some(CLOUD_PER_MIN),
        price_micros: PRICE,
        budget_micros: Some(BUDGET),
        ..Limits::default()
    };
    vec![site, cloud]
}

impl Month {
    async fn new(seed: u64) -> Self {
        let (poison, is_calm, outages) = <(Arc<Mutex<HashSet<_>>>, _, _)>::default();
        let mut weather = Weather {
            chance: Chance(seed ^ 0x5eed_5eed_5eed_5eed),
            lines: HashMap::new(),
            poison: Arc::clone(&poison),
            is_calm: Arc::clone(&is_calm),
            outages: Arc::clone(&outages),
        };
        let world = World::new(move |host, call| weather.act(host, call));
        let device = Device::started(world.clone(), destinations()).await;
        let begun = (device.now_ms(), Instant::now());
        Self {
            seed,
            chance: Chance(seed),
            device,
            world,
            asked: HashMap::new(),
            poison,
            is_calm,
            outages,
            starts: vec![Instant::now()],
            begun,
            appended: 0,
        }
    }

    async fn live(&mut self, until: Instant) {
        while Instant::now() < until {
            sleep(self.chance.span(Duration::from_secs(1), 25 * MINUTE)).await;
            let burst = if self.chance.once_in(150) { 60 } else { 1 };
            for _ in 0..burst {
                self.ask().await;
            }
            if self.chance.once_in(60) {
                self.jump();
            }
            if self.chance.once_in(50) {
                self.restart().await;
            }
            let gone = self.begun.1.elapsed() + Duration::from_secs(1);
            let counted = Duration::from_millis(self.device.now_ms() - self.begun.0);
            assert!(counted <= gone, "seed {}: {counted:?} of {gone:?}", self.seed);
        }
    }

    async fn ask(&mut self) {
        let chance = &mut self.chance;
        let (task, class) = match chance.below(10) {
            0..2 => ("part-inspection", DataClass::Public),
            2..7 => ("voice-commands", DataClass::Public),
            _ => ("voice-commands", DataClass::Confidential),
        };
        let ttl = match chance.below(10) {
            0 => chance.span(10 * MINUTE, 6 * 60 * MINUTE),
            _ => chance.span(3 * DAY, 20 * DAY),
        };
        let priority = u8::try_from(chance.below(10)).unwrap();
        let is_poison = chance.once_in(100);
        let held = Held { task, class, priority, ttl };
        let (accepted_ms, accepted) = (self.device.now_ms(), Instant::now());
        let id = RequestId::new();
        // Before it is held: it may go up at once.
        if is_poison {
            self.poison.lock().unwrap().insert(id.to_string());
        }
        self.device.hold_as(id, held).await;
        self.asked.insert(id, Asked { held, accepted_ms, accepted });
    }

    /// The date jumps, as nobody can trust it; or is right again.
    fn jump(&mut self) {
        let gone = u64::try_from(self.begun.1.elapsed().as_millis()).unwrap();
        let right = DATE_MS + gone;
        match self.chance.below(4) {
            0 => self.device.machine.set_date(right + YEAR_MS, false),
            1 => self.device.machine.set_date(right - YEAR_MS, false),
            2 => self.device.machine.set_date(0, false),
            _ => self.device.machine.set_date(right, true),
        }
    }

    async fn restart(&mut self) {
        self.appended += self.device.queue().stats().await.unwrap().appended;
        match self.chance.once_in(2) {
            true => self.device.kill().await,
            false => self.device.stop().await,
        }
        if self.chance.once_in(2) {
            sleep(self.chance.span(MINUTE, 6 * 60 * MINUTE)).await;
            self.device.machine.reboot();
            // A board without a battery boots in 1970.
            self.device.machine.set_date(0, false);
        }
        self.device.start().await;
        self.starts.push(Instant::now());
    }

    /// Everybody answers, until all is done that can be: for longer than the longest time to live.
    async fn calm(&mut self) {
        *self.is_calm.lock().unwrap() = true;
        sleep(21 * DAY).await;
        self.appended += self.device.queue().stats().await.unwrap().appended;
    }

    async fn ends(&self) -> BTreeMap<RequestId, (Summary, Option<Final>)> {
        let mut ends = BTreeMap::new();
        for id in self.asked.keys() {
            let record = self.device.queue().get(*id).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("seed {}: {id} is lost", self.seed));
            let answer = record.answer.map(|bytes| Final::from_bytes(&bytes).unwrap());
            ends.insert(*id, (record.summary, answer));
        }
        ends
    }
}

/// Each has one end: the one answer that was made for it, its time over, or set aside as poison.
async fn check_ends(month: &Month) -> [usize; 3] {
    let seed = month.seed;
    let (mut answered, mut expired, mut aside) = (0, 0, 0);
    for (id, (summary, answer)) in month.ends().await {
        let asked = &month.asked[&id];
        let is_poison = month.poison.lock().unwrap().contains(&id.to_string());
        match summary.state {
            State::Answered => {
                let made = answer.unwrap().answer.model;
                assert!(!is_poison && made.ends_with(&format!("#{id}")), "seed {seed}: {made}");
                answered += 1;
            }
            State::Expired => {
                let ttl_ms = u64::try_from(asked.held.ttl.as_millis()).unwrap();
                let ended = summary.finished_at_ms.unwrap();
                assert!(ended >= asked.accepted_ms + ttl_ms, "seed {seed}: {summary:?}");
                expired += 1;
            }
            State::SetAside => {
                assert!(is_poison && summary.attempts == 20, "seed {seed}: {summary:?}");
                aside += 1;
            }
            _ => panic!("seed {seed}: not done: {summary:?}"),
        }
    }
    let results = month.device.queue().results_after(0, usize::MAX).await.unwrap();
    let ids: HashSet<RequestId> = results.iter().map(|(_, summary)| summary.id).collect();
    assert_eq!(results.len(), ids.len(), "seed {seed}: somebody has two ends");
    assert_eq!(ids.len(), answered + expired, "seed {seed}");
    [answered, expired, aside]
}

/// Whether a send may want its price.
fn is_paid(seen: &Seen) -> bool {
    match seen.act {
        Act::Answer(_) | Act::Cut | Act::Silent => true,
        Act::Status(status, wait) => status >= 500 && wait.is_none(),
        Act::Nobody => false,
    }
}

fn check_money(seed: u64, seen: &[Seen]) {
    let mut days: BTreeMap<u64, u64> = BTreeMap::new();
    let mut today = 0;
    for seen in seen.iter().filter(|seen| seen.host == "cloud") {
        let day = seen.at_ms / DAY_MS;
        // A power cut sets the count back by minutes; what is spent then is of the later day, as noted.
        let is_set_back = day < today;
        today = today.max(day);
        // A price is of the day on which it was set apart, which was just before the send.
        if is_paid(seen) && (is_set_back || seen.at_ms % DAY_MS >= 5_000) {
            *days.entry(today).or_default() += PRICE;
        }
    }
    assert!(days.values().all(|spent| *spent <= BUDGET), "seed {seed}: {days:?}");
    assert!(days.values().any(|spent| *spent == BUDGET), "seed {seed}: the budget was never tried");
}

fn check_rate(seed: u64, host: &str, per_min: u64, seen: &[Seen], starts: &[Instant]) {
    let at: Vec<Instant> =
        seen.iter().filter(|seen| seen.host == host).map(|seen| seen.at).collect();
    assert!(seen.iter().all(|seen| seen.under_way <= PLACES), "seed {seed}: too many at once");
    for window in [Duration::from_secs(10), MINUTE, 10 * MINUTE, 60 * MINUTE] {
        let mut first = 0;
        for (last, end) in at.iter().enumerate() {
            while *end - at[first] > window {
                first += 1;
            }
            let stretch = (*end - at[first]).as_millis();
            let begun =
                starts.iter().filter(|start| **start > at[first] && **start <= *end).count();
            // What the bucket holds, what came in, and what an agent that starts has.
            let may = 2 + u128::from(per_min) * stretch / 60_000 + begun as u128 + 1;
            let went = (last - first + 1) as u128;
            assert!(went <= may, "seed {seed}: {went} at {host} in {stretch} ms, {may} may");
        }
    }
}

/// While an urgent request that was never tried waits for the site, none that is less urgent is sent,
/// but for those that were on their way to it.
fn check_order(month: &Month, seen: &[Seen]) {
    const AGEING_MS: u64 = 15 * 60 * 1000;
    let mut first_sent: HashMap<&str, Instant> = HashMap::new();
    for seen in seen {
        first_sent.entry(&seen.key).or_insert(seen.at);
    }
    let urgent: Vec<_> = month
        .asked
        .iter()
        .filter(|(_, asked)| asked.held.priority >= 7 && asked.held.task == "voice-commands")
        .map(|(id, asked)| (first_sent.get(id.to_string().as_str()).copied(), asked))
        .filter_map(|(sent, asked)| Some((sent?, asked)))
        .collect();
    let by_key: HashMap<String, &Asked> =
        month.asked.iter().map(|(id, asked)| (id.to_string(), asked)).collect();
    for seen in seen.iter().filter(|seen| seen.host == "site") {
        let this = by_key[&seen.key];
        let rank = |asked: &Asked| {
            u64::from(asked.held.priority) * AGEING_MS
                + seen.at_ms.saturating_sub(asked.accepted_ms)
        };
        let before = urgent.iter().find(|(sent, asked)| {
            let waits = asked.accepted + MINUTE < seen.at && *sent > seen.at + MINUTE;
            waits && rank(asked) > rank(this) + 60_000
        });
        assert!(before.is_none(), "seed {}: {seen:?} before {before:?}", month.seed);
    }
}

fn check_storms(month: &Month, seen: &[Seen]) {
    let (asked, poison) = (month.asked.len(), month.poison.lock().unwrap().len());
    let starts = month.starts.len();
    let outages = usize::try_from(*month.outages.lock().unwrap()).unwrap();
    let in_vain = seen.iter().filter(|seen| matches!(seen.act, Act::Nobody)).count();
    // One round of what is under way when a link goes, and a look at the start.
    assert!(in_vain <= (outages + 2 * starts) * PLACES, "{in_vain} in {outages} outages");
    // Poison that is left alone with a destination is no fault of its own: one try in a rest.
    let is_answer = |seen: &&Seen| matches!(seen.act, Act::Answer(_));
    let last = seen.iter().rev().find(is_answer).map_or(0, |seen| seen.at.elapsed().as_secs());
    let rests = 2 * usize::try_from(last / LEAST_REST.as_secs()).unwrap();
    let most = asked * 3 / 2 + poison * 21 + (outages + starts) * PLACES + rests;
    assert!(seen.len() <= most, "seed {}: {} sends of {asked}", month.seed, seen.len());
    let (writes, rests) = (month.appended, rests as u64);
    let most = 4 * asked as u64 + 25 * poison as u64 + rests;
    assert!(writes <= most, "seed {}: {writes} records of {asked}", month.seed);
}

#[tokio::test(start_paused = true)]
async fn a_month_of_outages_loses_nothing_and_ends_everything_once() {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => u64::from(getrandom::u32().unwrap()) + 1,
    };
    println!("HOLDFAST_SEED={seed}");
    let mut month = Month::new(seed).await;
    let end = Instant::now() + 30 * DAY;
    month.live(end).await;
    month.calm().await;
    let [answered, expired, aside] = check_ends(&month).await;
    let seen = month.world.seen().clone();
    println!(
        "{} asked, {answered} answered, {expired} expired, {aside} set aside; {} sends, {} outages, \
         {} starts, {} records",
        month.asked.len(),
        seen.len(),
        month.outages.lock().unwrap(),
        month.starts.len(),
        month.appended
    );
    check_money(seed, &seen);
    check_rate(seed, "site", SITE_PER_MIN, &seen, &month.starts);
    check_rate(seed, "cloud", CLOUD_PER_MIN, &seen, &month.starts);
    check_order(&month, &seen);
    check_storms(&month, &seen);
    assert!(answered > 1000 && expired + aside > 0, "seed {seed}: too quiet a month");
}
