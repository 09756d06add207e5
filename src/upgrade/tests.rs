use std::os::unix::net::UnixStream;

use crossbeam_channel::{unbounded, Receiver, Sender};

use super::*;
use crate::lifecycle::{exit_code, Lifecycle, Reason};

/// What a part is told, and whether the program was ready then, and in charge.
#[derive(Debug, PartialEq)]
enum Told {
    Open { ready: bool, in_charge: bool },
    TakeCharge { in_charge: bool },
}

/// Where answers are that nobody gets.
static NEVER_GIVEN: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

struct Listens {
    told: Sender<Told>,
    /// Whether it works.
    works: bool,
    is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    in_charge: Token,
}

impl Part for Listens {
    fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        Ok(Vec::new())
    }
    fn set_handed_over(&self, _: bool) {}
    fn smoke_test(&self, _: &Token, _: &dyn Fn(&str)) -> Result<(), String> {
        Ok(())
    }
    fn check(&self, answer: Box<dyn FnOnce() + Send>) {
        match self.works {
            true => answer(),
            // It never comes to it.
            false => NEVER_GIVEN.lock().push(answer),
        }
    }
    fn open(&self) {
        let (ready, in_charge) = ((self.is_ready)(), self.in_charge.is_cancelled());
        self.told.send(Told::Open { ready, in_charge }).unwrap();
    }
    fn take_charge(&self) {
        let in_charge = self.in_charge.is_cancelled();
        self.told.send(Told::TakeCharge { in_charge }).unwrap();
    }
}

/// A program that is to replace another: its lifecycle, its side of the conversation and the other, and a part of it
/// with what that is told.
struct New {
    lifecycle: Lifecycle,
    candidate: Candidate,
    old: Control,
    part: Arc<dyn Part>,
    told: Receiver<Told>,
}

impl New {
    fn start() -> New {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let control = Control::new(ours).unwrap();
        let old = Control::new(theirs).unwrap();
        let builder = Lifecycle::builder().upgrade(Upgrade::new());
        let lifecycle = builder.build().unwrap();
        let (sender, told) = unbounded();
        let part = Arc::new(Listens {
            told: sender,
            works: true,
            is_ready: Box::new({
                let remote = lifecycle.remote().handover();
                move || remote.is_ready()
            }),
            in_charge: lifecycle.in_charge().clone(),
        });
        New {
            lifecycle,
            candidate: Candidate { control },
            old,
            part,
            told,
        }
    }
}

#[test]
fn the_new_process_is_ready_before_it_serves_and_owns_its_paths_before_it_is_in_charge() {
    let new = New::start();
    let upgrades = new.lifecycle.attached::<Upgrades>().unwrap();
    upgrades.parts.lock().are_open = false;
    *upgrades.candidate.lock() = Some(Ok(new.candidate));
    upgrades.add(Arc::clone(&new.part));
    new.old.say(&Message::Serve).unwrap();
    new.lifecycle.ready().unwrap();
    let answers = true;
    assert_eq!(new.old.heard().recv(), Ok(Message::Ready { answers }));
    let (ready, in_charge) = (true, false);
    assert_eq!(new.told.recv(), Ok(Told::Open { ready, in_charge }));
    new.old.say(&Message::TakeOver).unwrap();
    assert_eq!(new.told.recv(), Ok(Told::TakeCharge { in_charge }));
    new.lifecycle.in_charge().wait();
}

#[test]
fn a_program_may_ask_what_it_is_while_it_shows_that_it_works() {
    struct Asks(Handover, Sender<bool>);
    impl Part for Asks {
        fn hand_over(&self) -> io::Result<Vec<Inherited>> {
            Ok(Vec::new())
        }
        fn set_handed_over(&self, _: bool) {}
        fn smoke_test(&self, _: &Token, _: &dyn Fn(&str)) -> Result<(), String> {
            self.1.send(self.0.is_candidate()).unwrap();
            Ok(())
        }
        fn open(&self) {}
        fn check(&self, answer: Box<dyn FnOnce() + Send>) {
            answer();
        }
        fn take_charge(&self) {}
    }
    let New {
        lifecycle,
        candidate,
        old,
        ..
    } = New::start();
    let (sender, is_candidate) = unbounded();
    let part: Arc<dyn Part> = Arc::new(Asks(lifecycle.remote().handover(), sender));
    let upgrades = lifecycle.attached::<Upgrades>().unwrap();
    *upgrades.candidate.lock() = Some(Ok(candidate));
    upgrades.add(Arc::clone(&part));
    old.say(&Message::Serve).unwrap();
    // It hangs if it fails.
    let program = lifecycle.clone();
    let serves = std::thread::spawn(move || program.ready());
    let answer = is_candidate.recv_timeout(Duration::from_secs(20));
    assert_eq!(answer, Ok(false), "it has begun");
    serves.join().unwrap().unwrap();
}

#[test]
fn a_stop_that_comes_with_the_charge_does_not_hide_it() {
    // A thread that hears two things at once takes either first.
    for _ in 0..20 {
        let new = New::start();
        new.old.say(&Message::TakeOver).unwrap();
        while new.candidate.control.heard().is_empty() {
            std::thread::yield_now();
        }
        new.lifecycle.shutdown("no need of it");
        let remote = new.lifecycle.remote().handover();
        new.candidate
            .await_charge(&remote, &[Arc::clone(&new.part)]);
        let in_charge = false;
        assert_eq!(new.told.try_recv(), Ok(Told::TakeCharge { in_charge }));
        assert!(new.lifecycle.in_charge().is_cancelled());
    }
}

#[test]
fn who_is_stopped_before_it_is_in_charge_is_not() {
    let new = New::start();
    new.lifecycle.shutdown("no need of it");
    let remote = new.lifecycle.remote().handover();
    new.candidate
        .await_charge(&remote, &[Arc::clone(&new.part)]);
    assert!(new.told.is_empty());
    assert!(!new.lifecycle.in_charge().is_cancelled());
    assert!(new.old.say(&Message::TakeOver).is_err());
}

#[test]
fn who_is_stopped_on_its_way_to_serving_is_in_charge_if_it_was_told_so() {
    for is_told in [true, false] {
        let New {
            lifecycle,
            candidate,
            old,
            part,
            told,
        } = New::start();
        let upgrades = lifecycle.attached::<Upgrades>().unwrap();
        upgrades.parts.lock().are_open = false;
        upgrades.add(Arc::clone(&part));
        let remote = lifecycle.remote().handover();
        old.say(&Message::Serve).unwrap();
        let proven = candidate.prove_ready(&upgrades, &remote).unwrap();
        if is_told {
            old.say(&Message::TakeOver).unwrap();
        }
        lifecycle.shutdown("no need of it");
        assert!(upgrades.busy.lock().awaits_charge);
        drop(proven);
        assert!(!upgrades.busy.lock().awaits_charge);
        assert_eq!(lifecycle.in_charge().is_cancelled(), is_told);
        assert_eq!(told.len(), usize::from(is_told));
        assert!(old.say(&Message::TakeOver).is_err());
    }
}

#[test]
fn who_cannot_speak_to_the_old_process_does_not_start() {
    let New {
        lifecycle, told, ..
    } = New::start();
    let upgrades = lifecycle.attached::<Upgrades>().unwrap();
    *upgrades.candidate.lock() = Some(Err("no descriptor".to_owned()));
    lifecycle.ready().unwrap_err();
    let reason = Reason::StartFailed("no descriptor".to_owned());
    assert_eq!(lifecycle.wait().reason, reason);
    assert!(told.is_empty());
    assert!(!lifecycle.in_charge().is_cancelled());
}

#[test]
fn who_is_told_to_leave_before_it_is_ready_has_failed_to_start() {
    let new = New::start();
    let upgrades = new.lifecycle.attached::<Upgrades>().unwrap();
    *upgrades.candidate.lock() = Some(Ok(new.candidate));
    new.old.say(&Message::Leave).unwrap();
    // As its end is, by now.
    drop(new.old);
    new.lifecycle.ready().unwrap_err();
    let report = new.lifecycle.wait();
    let why = "not to take over: the old process stops, or goes on without this one";
    assert_eq!(report.reason, Reason::StartFailed(why.to_owned()));
    assert_eq!(report.exit_code(), exit_code::FAILED_START);
    assert!(!new.lifecycle.in_charge().is_cancelled());
}

#[test]
fn the_new_process_says_that_it_is_well_once_every_part_of_it_works() {
    for works in [true, false] {
        let new = New::start();
        let other: Arc<dyn Part> = Arc::new(Listens {
            told: unbounded().0,
            works,
            is_ready: Box::new(|| true),
            in_charge: crate::lifecycle::Canceller::new().token(),
        });
        let parts = [Arc::clone(&new.part), other];
        let (remote, candidate) = (new.lifecycle.remote().handover(), new.candidate);
        let waits = std::thread::spawn(move || candidate.await_charge(&remote, &parts));
        new.old.say(&Message::Ask).unwrap();
        if works {
            assert_eq!(new.old.heard().recv(), Ok(Message::Well));
        }
        // It hears what it is told, though another part does not answer.
        new.old.say(&Message::Leave).unwrap();
        assert_eq!(new.old.heard().recv().ok(), None);
        waits.join().unwrap();
    }
}

#[test]
fn the_end_of_the_program_does_not_wait_for_ever() {
    let new = New::start();
    let upgrades = new.lifecycle.attached::<Upgrades>().unwrap();
    let short = Duration::from_millis(10);
    assert!(upgrades.is_settled_within(short));
    upgrades.busy.lock().upgrade = true;
    assert!(!upgrades.is_settled_within(short));
    drop(UnderWay(&upgrades));
    assert!(upgrades.is_settled_within(short));
}

/// For five seconds.
#[test]
fn a_new_process_is_told_to_leave_though_the_upgrade_hangs() {
    let new = New::start();
    let upgrades = new.lifecycle.attached::<Upgrades>().unwrap();
    let old = Arc::new(new.old);
    *upgrades.not_in_charge.lock() = Arc::downgrade(&old);
    upgrades.busy.lock().upgrade = true;
    upgrades.settle();
    assert_eq!(new.candidate.control.heard().recv(), Ok(Message::Leave));
    drop(UnderWay(&upgrades));
}

#[test]
fn the_charge_is_never_with_both_nor_with_nobody() {
    for _ in 0..100 {
        let new = New::start();
        let remote = new.lifecycle.remote().handover();
        let (part, candidate) = (Arc::clone(&new.part), new.candidate);
        let waits = std::thread::spawn(move || candidate.await_charge(&remote, &[part]));
        let old = new.old;
        let says = std::thread::spawn(move || old.say(&Message::TakeOver).is_ok());
        new.lifecycle.shutdown("no need of it");
        waits.join().unwrap();
        let has_come = says.join().unwrap();
        assert_eq!(new.lifecycle.in_charge().is_cancelled(), has_come);
        assert_eq!(new.told.len(), usize::from(has_come));
    }
}
