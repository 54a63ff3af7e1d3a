use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Far away.
const LONG: Duration = Duration::from_secs(60);

/// A pool whose workers say what they begin, and end it when they are let.
struct Shop {
    pool: Pool<u32>,
    begun: Receiver<Vec<u32>>,
    gate: Sender<()>,
    /// Workers that were taken on behind the first.
    hired: Receiver<()>,
}

fn worker(begun: Sender<Vec<u32>>, gate: Arc<Mutex<Receiver<()>>>) -> Worker<u32> {
    Box::new(move |work| match work {
        Work::Do(jobs) => {
            begun.send(jobs.clone()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
        Work::Tell => {}
        Work::Rest => begun.send(Vec::new()).unwrap(),
    })
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
    while Instant::now() <= over {
        std::thread::yield_now();
    }
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
    let until = Instant::now() + took;
    while Instant::now() < until {
        std::thread::yield_now();
    }
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
        until(|| self.pool.load().workers == 1);
    }
}

fn until(is_so: impl Fn() -> bool) {
    let over = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < over);
        std::thread::yield_now();
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
    until(|| shop.pool.load().workers == 1);
    let _third = shop.admit(3);
    assert_eq!(shop.begins(), [3], "somebody is there");
    shop.gate.send(()).unwrap();
}

#[test]
fn who_has_nothing_to_do_rests_and_wakes_again() {
    let rest_after = Some(Duration::from_millis(1));
    let shop = shop(Rules { rest_after, ..rules(1, 8) });
    assert_eq!(shop.begins(), [0; 0], "it rests");
    while !shop.pool.load().is_resting {
        std::thread::yield_now();
    }
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
    while shop.pool.load().runs < 4 {
        std::thread::yield_now();
    }
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
    while shop.pool.load().busy > 0 {
        std::thread::yield_now();
    }
    let _lone = shop.admit(8, 4);
    assert_eq!(shop.begins(), [8]);
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

#[test]
fn who_asks_again_at_once_needs_no_further_worker() {
    let (say, told) = channel();
    let first = Box::new(move |work: Work<'_, u32>| {
        if matches!(work, Work::Tell) {
            say.send(()).unwrap();
        }
    });
    let hire = Box::new(|| -> Result<Worker<u32>, String> { panic!("nobody had to wait") });
    let pool = Pool::start("shop".to_owned(), rules(2, 8), first, hire).unwrap();
    for job in 0..2000 {
        let admitted = pool.admit(job, Priority::default(), Instant::now() + LONG);
        let _ticket = admitted.unwrap().0;
        told.recv_timeout(LONG).expect("it is done");
    }
    assert_eq!(pool.load().workers, 1);
}
