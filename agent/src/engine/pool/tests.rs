use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::engine::tests::deadline::{LONG, until_blocking as until};

/// A pool whose workers say what they begin, and end it when they are let.
struct Shop {
    pool: Pool<u32>,
    begun: Receiver<Vec<u32>>,
    gate: Sender<()>,
    /// Workers that were taken on behind the first.
    hired: Receiver<()>,
}

/// A worker that says what it begins, and ends it when it is let.
struct Hand {
    begun: Sender<Vec<u32>>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl Work<u32> for Hand {
    fn is_ready(&self) -> bool {
        true
    }

    fn make_ready(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn work(&mut self, jobs: &mut Vec<u32>) -> u64 {
        self.begun.send(jobs.clone()).unwrap();
        self.gate.lock().unwrap().recv_timeout(LONG).unwrap();
        1
    }

    fn tell(&mut self) {}

    fn turn_away(&mut self, job: u32, why: &str) {
        panic!("{job} is turned away: {why}");
    }

    fn rest(&mut self) {
        self.begun.send(Vec::new()).unwrap();
    }
}

fn worker(begun: Sender<Vec<u32>>, gate: Arc<Mutex<Receiver<()>>>) -> Worker<u32> {
    Box::new(Hand { begun, gate })
}

fn rules(workers: usize, waiting: usize) -> Rules<u32> {
    Rules { workers, waiting, rest_after: None, hire_again_after: LONG, batching: None }
}

fn batching(most: usize, delay: Duration) -> Option<Batching<u32>> {
    Some(Batching { alike: |left, right| left % 2 == right % 2, most, size: |_| 1, delay })
}

fn shop(rules: Rules<u32>) -> Shop {
    let (say, begun) = channel();
    let (gate, held) = channel();
    let (hires, hired) = channel();
    let held = Arc::new(Mutex::new(held));
    let first = worker(say.clone(), Arc::clone(&held));
    let hire = Mutex::new((say, hires));
    let hire = Box::new(move || {
        let (say, hires) = &*hire.lock().unwrap();
        hires.send(()).unwrap();
        Ok(worker(say.clone(), Arc::clone(&held)))
    });
    Shop { pool: Pool::start("shop".to_owned(), rules, first, hire).unwrap(), begun, gate, hired }
}

impl Shop {
    fn try_admit(&self, job: u32, priority: u8, within: Duration) -> Result<Ticketed, Turned> {
        let priority = Priority::new(priority).unwrap();
        self.pool.admit(job, priority, Instant::now() + within)
    }

    fn admit(&self, job: u32, priority: u8) -> Ticket<u32> {
        self.try_admit(job, priority, LONG).unwrap().0
    }

    fn begins(&self) -> Vec<u32> {
        self.begun.recv_timeout(LONG).expect("a worker begins")
    }

    fn let_go(&self) {
        self.gate.send(()).unwrap();
    }
}

type Ticketed = (Ticket<u32>, Option<u32>);

#[test]
fn the_urgent_go_first_and_who_left_is_never_begun() {
    let shop = shop(rules(1, 8));
    let mut tickets = vec![shop.admit(1, 4)];
    assert_eq!(shop.begins(), [1]);
    let left = shop.admit(2, 4);
    tickets.extend([(3, 0), (4, 9), (5, 4)].map(|(job, priority)| shop.admit(job, priority)));
    assert_eq!(shop.pool.load().waiting, 4);
    drop(left);
    assert_eq!(shop.pool.load().waiting, 3, "its place is free at once");
    for want in [4, 5, 3] {
        shop.let_go();
        assert_eq!(shop.begins(), [want]);
    }
    shop.let_go();
}

#[test]
fn who_is_late_is_never_begun() {
    let shop = shop(rules(1, 8));
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1]);
    let within = Duration::from_millis(2);
    let _late = shop.try_admit(2, 9, within).unwrap();
    let over = Instant::now() + within;
    until("its time is over", || Instant::now() > over);
    let _next = shop.admit(3, 4);
    shop.let_go();
    assert_eq!(shop.begins(), [3]);
    shop.let_go();
}

#[test]
fn what_cannot_be_done_in_time_is_refused_at_once() {
    let shop = shop(rules(1, 8));
    let took = Duration::from_millis(20);
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1]);
    let over = Instant::now() + took;
    until("the run takes its time", || Instant::now() >= over);
    let _second = shop.admit(2, 4);
    shop.let_go();
    assert_eq!(shop.begins(), [2]);
    let Err(Turned::TooLate { expected }) = shop.try_admit(3, 4, took / 2) else {
        panic!("half a run in front and its own run take longer");
    };
    assert!(expected >= took, "{expected:?}");
    assert_eq!(shop.pool.load().waiting, 0);
    let enough = shop.try_admit(4, 4, LONG);
    assert!(enough.is_ok());
    shop.let_go();
    assert_eq!(shop.begins(), [4]);
    shop.let_go();
}

#[test]
fn a_full_line_turns_away_or_makes_room_for_the_urgent() {
    let shop = shop(rules(1, 1));
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1]);
    let _waits = shop.admit(2, 4);
    assert!(matches!(shop.try_admit(3, 4, LONG), Err(Turned::Full { .. })));
    let (_urgent, instead) = shop.try_admit(4, 9, LONG).unwrap();
    assert_eq!(instead, Some(2));
    shop.let_go();
    assert_eq!(shop.begins(), [4]);
    shop.let_go();
}

#[test]
fn more_workers_are_taken_on_when_all_are_busy_and_somebody_waits() {
    let shop = shop(rules(2, 8));
    let _tickets = [1, 2, 3].map(|job| shop.admit(job, 4));
    let mut begun = [shop.begins(), shop.begins()].concat();
    begun.sort_unstable();
    assert_eq!(begun, [1, 2]);
    shop.hired.recv_timeout(LONG).unwrap();
    assert_eq!((shop.pool.load().workers, shop.pool.load().waiting), (2, 1));
    shop.let_go();
    assert_eq!(shop.begins(), [3]);
    assert!(shop.hired.try_recv().is_err(), "two are the most");
    shop.let_go();
    shop.let_go();
}

/// A pool whose further workers come when they are let, or do not come.
struct Agency {
    pool: Pool<u32>,
    begun: Receiver<Vec<u32>>,
    gate: Sender<()>,
    /// Somebody asks for one more.
    asked: Receiver<()>,
    /// What comes of it.
    outcome: Sender<Result<(), String>>,
}

fn agency(rules: Rules<u32>) -> Agency {
    let (say, begun) = channel();
    let (gate, held) = channel();
    let (ask, asked) = channel();
    let (outcome, outcomes) = channel();
    let held = Arc::new(Mutex::new(held));
    let first = worker(say.clone(), Arc::clone(&held));
    let hire = Mutex::new((say, ask, outcomes));
    let hire = Box::new(move || {
        let (say, ask, outcomes) = &*hire.lock().unwrap();
        ask.send(()).unwrap();
        let come: Result<(), String> = outcomes.recv_timeout(LONG).unwrap();
        come.map(|()| worker(say.clone(), Arc::clone(&held)))
    });
    let pool = Pool::start("shop".to_owned(), rules, first, hire).unwrap();
    Agency { pool, begun, gate, asked, outcome }
}

impl Agency {
    fn admit(&self, job: u32) -> Ticket<u32> {
        self.pool.admit(job, Priority::default(), Instant::now() + LONG).unwrap().0
    }

    fn begins(&self) -> Vec<u32> {
        self.begun.recv_timeout(LONG).expect("a worker begins")
    }

    fn refuses(&self) {
        self.asked.recv_timeout(LONG).unwrap();
        self.outcome.send(Err("there is no memory".to_owned())).unwrap();
        until("it does not come", || self.pool.load().workers == 1);
    }
}

#[test]
fn a_worker_that_cannot_be_had_is_not_asked_for_at_every_request() {
    let shop = agency(rules(4, 8));
    let _tickets = [1, 2].map(|job| shop.admit(job));
    shop.refuses();
    let _more = [3, 4].map(|job| shop.admit(job));
    for job in [1, 2, 3, 4] {
        assert_eq!(shop.begins(), [job], "one does it all");
        shop.gate.send(()).unwrap();
    }
    assert!(shop.asked.try_recv().is_err());
}

#[test]
fn a_worker_that_could_not_be_had_is_asked_for_later() {
    let shop = agency(Rules { hire_again_after: Duration::ZERO, ..rules(2, 8) });
    let _tickets = [1, 2].map(|job| shop.admit(job));
    assert_eq!(shop.begins(), [1]);
    shop.refuses();
    let _third = shop.admit(3);
    shop.asked.recv_timeout(LONG).expect("it may be there by now");
    shop.outcome.send(Ok(())).unwrap();
    assert_eq!(shop.begins(), [2], "by the second worker: the first is still at work");
    assert_eq!(shop.pool.load().workers, 2);
    shop.gate.send(()).unwrap();
    assert_eq!(shop.begins(), [3]);
    shop.gate.send(()).unwrap();
    shop.gate.send(()).unwrap();
}

/// Who has nothing to do rests, and does not end, while the only other one is still to come.
#[test]
fn one_who_looks_at_the_line_is_left_where_another_does_not_come() {
    let rest_after = Some(Duration::from_millis(1));
    let shop = agency(Rules { rest_after, ..rules(2, 8) });
    assert_eq!(shop.begins(), [0; 0], "it rests");
    let first = shop.admit(1);
    assert_eq!(shop.begins(), [1]);
    let second = shop.admit(2);
    shop.asked.recv_timeout(LONG).unwrap();
    // The second is taken back, and the first worker has nothing to do any more.
    drop(second);
    shop.gate.send(()).unwrap();
    drop(first);
    assert_eq!(shop.begins(), [0; 0], "it rests, although another one is to come");
    shop.outcome.send(Err("there is no memory".to_owned())).unwrap();
    until("it does not come", || shop.pool.load().workers == 1);
    let _third = shop.admit(3);
    assert_eq!(shop.begins(), [3], "somebody is there");
    shop.gate.send(()).unwrap();
}

#[test]
fn who_has_nothing_to_do_rests_and_wakes_again() {
    let rest_after = Some(Duration::from_millis(1));
    let shop = shop(Rules { rest_after, ..rules(1, 8) });
    assert_eq!(shop.begins(), [0; 0], "it rests");
    until("it rests", || shop.pool.load().is_resting);
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1]);
    assert!(!shop.pool.load().is_resting);
    shop.let_go();
    assert_eq!(shop.begins(), [0; 0], "and again");
}

#[test]
fn those_alike_go_together_up_to_the_most() {
    let shop = shop(Rules { batching: batching(3, Duration::ZERO), ..rules(1, 16) });
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1]);
    let _tickets = [2, 3, 4, 6, 8, 5].map(|job| shop.admit(job, 4));
    for want in [&[2, 4, 6][..], &[3, 5], &[8]] {
        shop.let_go();
        assert_eq!(shop.begins(), want);
    }
    shop.let_go();
    until("four runs", || shop.pool.load().runs == 4);
}

#[test]
fn a_busy_worker_waits_for_more_and_a_free_one_does_not() {
    let shop = shop(Rules { batching: batching(3, LONG), ..rules(1, 16) });
    let _first = shop.admit(1, 4);
    assert_eq!(shop.begins(), [1], "nobody is made to wait for company");
    let _two = [2, 4].map(|job| shop.admit(job, 4));
    shop.let_go();
    let _third = shop.admit(6, 4);
    assert_eq!(shop.begins(), [2, 4, 6], "the worker waited until it had all it can do");
    shop.let_go();
    until("it is free", || shop.pool.load().busy == 0);
    let _lone = shop.admit(8, 4);
    assert_eq!(shop.begins(), [8]);
    shop.let_go();
}

/// Of three alike that come at once and two workers that are free, one takes two: nobody goes along with a
/// run whom a free worker would begin.
#[test]
fn those_alike_are_left_to_whoever_is_free() {
    let shop = shop(Rules { batching: batching(8, Duration::ZERO), ..rules(2, 16) });
    let _both = [1, 4].map(|job| shop.admit(job, 4));
    drop([shop.begins(), shop.begins()]);
    shop.let_go();
    shop.let_go();
    until("both are free", || shop.pool.load().busy == 0);
    // They are in the line before either worker looks at it.
    let mut floor = shop.pool.shared.floor();
    let now = Instant::now();
    for job in [2, 4, 6] {
        let place = floor.line.place(Priority::default(), now);
        assert!(matches!(floor.line.enter((place, now), now + LONG, job), Entered::Waits));
    }
    drop(floor);
    shop.pool.shared.bell.notify_all();
    let mut begun = [shop.begins(), shop.begins()];
    begun.sort_unstable();
    assert_eq!(begun, [vec![2, 4], vec![6]], "only who would have waited goes along");
    shop.let_go();
    shop.let_go();
}

#[test]
fn the_threads_end_with_the_pool() {
    let Shop { pool, begun, gate, hired: _hired } = shop(rules(2, 8));
    let tickets = [1, 2].map(|job| pool.admit(job, Priority::default(), Instant::now() + LONG));
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    drop(pool);
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    // The workers, and what makes them, are gone.
    drop(tickets);
    assert!(
        begun
            .recv_timeout(LONG)
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Disconnected)
    );
}

/// A worker that is done at once, and says when it tells.
struct Quick(Sender<()>);

impl Work<u32> for Quick {
    fn is_ready(&self) -> bool {
        true
    }

    fn make_ready(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn work(&mut self, _jobs: &mut Vec<u32>) -> u64 {
        1
    }

    fn tell(&mut self) {
        self.0.send(()).unwrap();
    }

    fn turn_away(&mut self, _job: u32, _why: &str) {}

    fn rest(&mut self) {}
}

#[test]
fn who_asks_again_at_once_needs_no_further_worker() {
    let (say, told) = channel();
    let hire = Box::new(|| -> Result<Worker<u32>, String> { panic!("nobody had to wait") });
    let pool = Pool::start("shop".to_owned(), rules(2, 8), Box::new(Quick(say)), hire).unwrap();
    for job in 0..2000 {
        let admitted = pool.admit(job, Priority::default(), Instant::now() + LONG);
        let _ticket = admitted.unwrap().0;
        told.recv_timeout(LONG).expect("it is done");
    }
    assert_eq!(pool.load().workers, 1);
}

/// What a worker that breaks says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begun(u32),
    /// It tries to be ready again.
    Tries,
    TurnedAway(u32),
}

/// A worker that a job can break: an even one does. Every try to mend it has the outcome that comes.
struct Brittle {
    is_whole: bool,
    said: Sender<Said>,
    gate: Arc<Mutex<Receiver<()>>>,
    mended: Arc<Mutex<Receiver<Result<(), String>>>>,
}

impl Work<u32> for Brittle {
    fn is_ready(&self) -> bool {
        self.is_whole
    }

    fn make_ready(&mut self) -> Result<(), String> {
        self.said.send(Said::Tries).unwrap();
        // At the end of a test nobody mends it any more.
        let mended = self.mended.lock().unwrap().recv_timeout(LONG);
        let mended = mended.unwrap_or_else(|_| Err("no file".to_owned()));
        self.is_whole = mended.is_ok();
        mended
    }

    fn work(&mut self, jobs: &mut Vec<u32>) -> u64 {
        let job = jobs.pop().unwrap();
        self.said.send(Said::Begun(job)).unwrap();
        self.gate.lock().unwrap().recv_timeout(LONG).unwrap();
        self.is_whole = job % 2 == 1;
        1
    }

    fn tell(&mut self) {}

    fn turn_away(&mut self, job: u32, why: &str) {
        assert_eq!(why, "no file");
        self.said.send(Said::TurnedAway(job)).unwrap();
    }

    fn rest(&mut self) {}
}

struct Workshop {
    pool: Pool<u32>,
    said: Receiver<Said>,
    gate: Sender<()>,
    mend: Sender<Result<(), String>>,
}

fn workshop(workers: usize) -> Workshop {
    let (say, said) = channel();
    let (gate, held) = channel();
    let (mend, mended) = channel();
    let (held, mended) = (Arc::new(Mutex::new(held)), Arc::new(Mutex::new(mended)));
    let make = move |said: &Sender<Said>| -> Worker<u32> {
        let (gate, mended) = (Arc::clone(&held), Arc::clone(&mended));
        Box::new(Brittle { is_whole: true, said: said.clone(), gate, mended })
    };
    let first = make(&say);
    let say = Mutex::new(say);
    let hire = Box::new(move || Ok(make(&say.lock().unwrap())));
    let pool = Pool::start("shop".to_owned(), rules(workers, 8), first, hire).unwrap();
    Workshop { pool, said, gate, mend }
}

impl Workshop {
    fn admit(&self, job: u32) -> Result<Ticket<u32>, Turned> {
        let admitted = self.pool.admit(job, Priority::default(), Instant::now() + LONG);
        admitted.map(|(ticket, _)| ticket)
    }

    fn says(&self) -> Said {
        self.said.recv_timeout(LONG).expect("a worker says something")
    }

    fn cannot_be_mended(&self) {
        self.mend.send(Err("no file".to_owned())).unwrap();
    }
}

#[test]
fn a_worker_that_cannot_be_mended_takes_nothing_while_another_can_work() {
    let shop = workshop(2);
    let mut tickets = Vec::from([2, 1].map(|job| shop.admit(job).unwrap()));
    let mut begun = [shop.says(), shop.says()];
    begun.sort_by_key(|said| matches!(said, Said::Begun(2)));
    assert_eq!(begun, [Said::Begun(1), Said::Begun(2)]);
    tickets.push(shop.admit(3).unwrap());
    shop.gate.send(()).unwrap();
    shop.gate.send(()).unwrap();
    // Whichever comes first takes the third job, or tries to be ready for it.
    let mut all = vec![shop.says()];
    if all[0] == Said::Tries {
        shop.cannot_be_mended();
        all.push(shop.says());
    }
    assert!(all.contains(&Said::Begun(3)), "{all:?}");
    shop.gate.send(()).unwrap();
    for job in [5, 7, 9] {
        tickets.push(shop.admit(job).unwrap());
        let mut says = shop.says();
        if says == Said::Tries {
            shop.cannot_be_mended();
            says = shop.says();
        }
        assert_eq!(says, Said::Begun(job), "the one that can work does it all");
        shop.gate.send(()).unwrap();
    }
    assert_eq!(shop.pool.fault(), None, "somebody can work");
}

#[test]
fn where_nobody_can_work_it_is_told_at_once_and_tried_again_by_the_next() {
    let shop = workshop(1);
    let _first = shop.admit(2).unwrap();
    assert_eq!(shop.says(), Said::Begun(2));
    let _waits = [1, 3].map(|job| shop.admit(job).unwrap());
    shop.gate.send(()).unwrap();
    assert_eq!(shop.says(), Said::Tries);
    shop.cannot_be_mended();
    assert_eq!([shop.says(), shop.says()], [Said::TurnedAway(1), Said::TurnedAway(3)]);
    assert_eq!(shop.pool.fault().as_deref(), Some("no file"));
    // One has it tried again; who comes meanwhile does not wait for what comes of it.
    let _canary = shop.admit(5).unwrap();
    assert_eq!(shop.says(), Said::Tries);
    assert_eq!(shop.admit(7).unwrap_err(), Turned::Ill { why: "no file".to_owned() });
    shop.mend.send(Ok(())).unwrap();
    assert_eq!(shop.says(), Said::Begun(5));
    assert_eq!(shop.pool.fault(), None);
    shop.gate.send(()).unwrap();
    let _after = shop.admit(9).unwrap();
    assert_eq!(shop.says(), Said::Begun(9));
    shop.gate.send(()).unwrap();
}
