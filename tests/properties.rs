//! Properties of the lifecycle: what holds for every plan and for every set of hooks.
//!
//! `PROPTEST_CASES` sets how many cases are tried of each, 256 by default.

mod lifecycle_support;

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, Receiver, Sender};
use lifecycle_support::bound;
use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use proptest::sample::{subsequence, Index};
use touchdown::lifecycle::{
    exit_code, BuildError, Hook, HookError, Lifecycle, Outcome, Participant, Plan, Report,
};

/// None, all there is, a few, and anything between.
fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..60_000_u64).prop_map(Duration::from_millis),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        // Around the largest time_t, and the largest number of milliseconds and nanoseconds in 64 bits.
        (
            0..4_u64,
            prop_oneof![Just(1), Just(1000), Just(1_000_000_000)]
        )
            .prop_map(|(off, unit)| Duration::from_secs(i64::MAX as u64 / unit + off - 2)),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let phases = [
        any_duration(),
        any_duration(),
        any_duration(),
        any_duration(),
    ];
    (phases, proptest::option::of(any_duration())).prop_map(
        |([duck, grace, force, closing], hard)| {
            let plan = Plan::new()
                .with_lame_duck(duck)
                .with_grace_period(grace)
                .with_force_period(force)
                .with_closing(closing);
            match hard {
                Some(hard) => plan.with_hard_deadline(hard),
                None => plan,
            }
        },
    )
}

/// The sum, or as much as there is.
fn sum(times: &[Duration]) -> Duration {
    let nanos: u128 = times.iter().map(Duration::as_nanos).sum();
    if nanos >= Duration::MAX.as_nanos() {
        return Duration::MAX;
    }
    let nanos_per_sec = 1_000_000_000;
    Duration::new(
        (nanos / nanos_per_sec) as u64,
        (nanos % nanos_per_sec) as u32,
    )
}

fn phases(plan: &Plan) -> Duration {
    sum(&[
        plan.lame_duck(),
        plan.grace_period(),
        plan.force_period(),
        plan.closing(),
    ])
}

proptest! {
    #[test]
    fn a_plan_without_a_hard_deadline_gets_one_behind_its_phases(plan in any_plan()) {
        let plan = Plan::new()
            .with_lame_duck(plan.lame_duck())
            .with_grace_period(plan.grace_period())
            .with_force_period(plan.force_period())
            .with_closing(plan.closing());
        prop_assert_eq!(
            plan.hard_deadline(),
            sum(&[phases(&plan), Duration::from_secs(5)])
        );
        prop_assert_eq!(plan.validate(), Ok(()));
    }

    #[test]
    fn a_plan_is_refused_if_its_deadline_is_within_its_phases_and_only_then(plan in any_plan()) {
        let (deadline, phases) = (plan.hard_deadline(), phases(&plan));
        let kept = deadline >= phases && deadline > Duration::ZERO;
        match plan.validate() {
            Ok(()) => prop_assert!(kept),
            Err(error) => {
                prop_assert!(!kept);
                prop_assert_eq!((error.hard_deadline, error.phases), (deadline, phases));
                let refused = Lifecycle::builder().plan(plan).build();
                prop_assert!(matches!(refused, Err(BuildError::Plan(it)) if it == error));
            }
        }
    }

    /// Every time in it is added to the present somewhere.
    #[test]
    fn a_stop_with_nothing_to_wait_for_is_over_at_once_under_any_plan(plan in any_plan()) {
        let hour = Duration::from_secs(3600);
        let plan = plan.with_lame_duck(Duration::ZERO).with_closing(plan.closing().max(hour));
        let plan = plan.with_hard_deadline(plan.hard_deadline().max(phases(&plan)));
        let _bound = bound();
        let lifecycle = Lifecycle::builder()
            .plan(plan)
            .hook(Hook::new("hook", || Ok(())).time_limit(plan.grace_period().max(hour)))
            .build()
            .unwrap();
        let closes = Arc::new(Closes::default());
        lifecycle.enlist(Arc::clone(&closes) as Arc<dyn Participant>).unwrap();
        lifecycle.ready().unwrap();
        lifecycle.shutdown("test");
        let report = lifecycle.wait();
        prop_assert_eq!(report.exit_code(), exit_code::CLEAN, "{}", report);
        let deadline = closes.0.lock().unwrap().unwrap();
        prop_assert!(deadline > Instant::now(), "it closes within half of an hour or more");
    }
}

/// Remembers until when it was allowed to close.
#[derive(Default)]
struct Closes(Mutex<Option<Instant>>);

impl Participant for Closes {
    fn name(&self) -> String {
        "closes".to_owned()
    }

    fn close(&self, deadline: Instant) {
        *self.0.lock().unwrap() = Some(deadline);
    }

    fn running(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a hook does.
#[derive(Clone, Debug)]
enum Deed {
    Work,
    Fail(String),
    Panic(String),
    Overrun,
}

impl Deed {
    fn outcome(&self) -> Outcome {
        match self {
            Deed::Work => Outcome::Done,
            Deed::Fail(message) => Outcome::Failed(message.clone()),
            Deed::Panic(message) => Outcome::Panicked(message.clone()),
            Deed::Overrun => Outcome::Overran,
        }
    }
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => Just(Deed::Work),
        1 => any::<String>().prop_map(Deed::Fail),
        1 => any::<String>().prop_map(Deed::Panic),
        1 => Just(Deed::Overrun),
    ]
}

/// Hooks and, for each, the places of those that it runs after.
#[derive(Clone, Debug)]
struct Plot {
    names: Vec<String>,
    after: Vec<Vec<usize>>,
}

impl Plot {
    fn hook(
        &self,
        place: usize,
        work: impl FnOnce() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    ) -> Hook {
        let hook = Hook::new(&*self.names[place], work);
        let after = self.after[place].iter();
        after.fold(hook, |hook, after| hook.after(&*self.names[*after]))
    }

    /// Whether `from` waits for `to`, if only by way of others.
    fn waits(&self, from: usize, to: usize) -> bool {
        let (mut seen, mut next) = (HashSet::new(), self.after[from].clone());
        while let Some(place) = next.pop() {
            if place == to {
                return true;
            }
            if seen.insert(place) {
                next.extend(&self.after[place]);
            }
        }
        false
    }
}

fn any_names() -> impl Strategy<Value = Vec<String>> {
    hash_set(any::<String>(), 1..9).prop_map(|names| names.into_iter().collect())
}

fn any_plot() -> impl Strategy<Value = Plot> {
    any_names().prop_flat_map(|names| {
        let count = names.len();
        let after = vec(vec(0..count, 0..3), count);
        after.prop_map(move |after| Plot {
            names: names.clone(),
            after,
        })
    })
}

/// Each runs after some of those before it; then all are shuffled.
fn any_plot_with_an_order() -> impl Strategy<Value = Plot> {
    (any_names(), any::<[Index; 8]>())
        .prop_flat_map(|(names, picks)| {
            let earlier: Vec<_> = (0..names.len())
                .map(|place| subsequence((0..place).collect::<Vec<_>>(), 0..=place.min(3)))
                .collect();
            let places: Vec<_> = (0..names.len()).collect();
            (
                Just(names),
                Just(picks),
                earlier,
                Just(places).prop_shuffle(),
            )
        })
        .prop_map(|(names, picks, earlier, to)| {
            let mut after = vec![Vec::new(); names.len()];
            for (place, earlier) in earlier.iter().enumerate() {
                after[to[place]] = earlier.iter().map(|it| to[*it]).collect();
            }
            // To say it twice changes nothing.
            let (hook, pick) = (picks[0].index(names.len()), picks[1]);
            if !after[hook].is_empty() {
                let again = after[hook][pick.index(after[hook].len())];
                after[hook].push(again);
            }
            Plot { names, after }
        })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Begin(usize),
    End(usize),
}

/// Runs the hooks, and says what was begun and ended in which order.
fn run(plot: &Plot, deeds: &[Deed], plan: Plan) -> (Report, Vec<Event>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (_release, stuck): (Sender<()>, Receiver<()>) = bounded(0);
    let mut builder = Lifecycle::builder().plan(plan);
    for (place, deed) in deeds.iter().enumerate() {
        let (log, stuck, deed) = (Arc::clone(&log), stuck.clone(), deed.clone());
        let overruns = matches!(deed, Deed::Overrun);
        let hook = plot.hook(place, move || {
            log.lock().unwrap().push(Event::Begin(place));
            if let Deed::Overrun = deed {
                // Until the test has its report.
                let _ = stuck.recv();
                return Ok(());
            }
            log.lock().unwrap().push(Event::End(place));
            match deed {
                Deed::Fail(message) => Err(message.into()),
                // Without a word on the standard error.
                Deed::Panic(message) => resume_unwind(Box::new(message)),
                _ => Ok(()),
            }
        });
        let limit = if overruns { 1 } else { 3_600_000 };
        builder = builder.hook(hook.time_limit(Duration::from_millis(limit)));
    }
    let lifecycle = builder.build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle.shutdown("test");
    let report = lifecycle.wait();
    let log = log.lock().unwrap().clone();
    (report, log)
}

proptest! {
    #[test]
    fn hooks_run_once_each_after_those_that_they_name(
        plot in any_plot_with_an_order(),
        deeds in vec(any_deed(), 8),
    ) {
        let _bound = bound();
        let deeds = &deeds[..plot.names.len()];
        let plan = Plan::new().with_closing(Duration::from_secs(3600));
        let (report, log) = run(&plot, deeds, plan);

        let told: Vec<_> = report.hooks.iter().map(|it| (&it.name, it.outcome.clone())).collect();
        let done: Vec<_> = plot.names.iter().zip(deeds.iter().map(Deed::outcome)).collect();
        prop_assert_eq!(told, done, "each is reported once, in the order in which it was added");

        let mut left: Vec<_> = report.abandoned.clone();
        let overran = plot.names.iter().zip(deeds).filter(|it| matches!(it.1, Deed::Overrun));
        let mut overran: Vec<_> = overran.map(|it| it.0.clone()).collect();
        left.sort();
        overran.sort();
        prop_assert_eq!(left, overran);

        let clean = deeds.iter().all(|it| matches!(it, Deed::Work));
        let code = if clean { exit_code::CLEAN } else { exit_code::CLOSING_FAILED };
        prop_assert_eq!(report.exit_code(), code);
        prop_assert!(!report.to_string().contains(char::is_control));

        let times = |event| log.iter().filter(|it| **it == event).count();
        let when = |event| log.iter().position(|it| *it == event);
        for (place, deed) in deeds.iter().enumerate() {
            let ends = !matches!(deed, Deed::Overrun);
            // One that is left behind may not even have come to its first line.
            prop_assert!(times(Event::Begin(place)) == 1 || !ends);
            prop_assert_eq!(times(Event::End(place)), usize::from(ends));
            for after in &plot.after[place] {
                if let (Some(end), Some(begin)) = (when(Event::End(*after)), when(Event::Begin(place))) {
                    prop_assert!(end < begin, "{} ran before {} had ended", place, after);
                }
            }
        }
    }

    #[test]
    fn no_hook_runs_in_a_closing_phase_of_no_time(
        plot in any_plot_with_an_order(),
        deeds in vec(any_deed(), 8),
    ) {
        let _bound = bound();
        let plan = Plan::new().with_closing(Duration::ZERO);
        let (report, log) = run(&plot, &deeds[..plot.names.len()], plan);
        prop_assert_eq!(log, []);
        let told: Vec<_> = report.hooks.iter().map(|it| &it.name).collect();
        prop_assert_eq!(told, plot.names.iter().collect::<Vec<_>>());
        prop_assert!(report.hooks.iter().all(|it| it.outcome == Outcome::NotRun));
        prop_assert_eq!(report.exit_code(), exit_code::CLOSING_FAILED);
    }

    #[test]
    fn hooks_that_wait_for_each_other_are_refused_and_no_others(plot in any_plot()) {
        let count = plot.names.len();
        let cyclic = (0..count).any(|place| plot.waits(place, place));
        let hooks = (0..count).map(|place| plot.hook(place, || Ok(())));
        let built = hooks.fold(Lifecycle::builder(), |builder, hook| builder.hook(hook)).build();
        match built {
            Ok(lifecycle) => {
                prop_assert!(!cyclic);
                lifecycle.shutdown("test");
                prop_assert_eq!(lifecycle.wait().exit_code(), exit_code::CLEAN);
            }
            Err(BuildError::Hook(HookError::Cycle(cycle))) => {
                let place = |name| plot.names.iter().position(|it| it == name).unwrap();
                let cycle: Vec<usize> = cycle.iter().map(place).collect();
                let distinct: HashSet<_> = cycle.iter().collect();
                prop_assert!(!cycle.is_empty() && distinct.len() == cycle.len(), "{:?}", cycle);
                for (from, to) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
                    prop_assert!(plot.after[*from].contains(to), "{} after {}: {:?}", from, to, cycle);
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_name_that_no_hook_has_and_one_that_two_have_are_refused(
        plot in any_plot_with_an_order(),
        hook in any::<Index>(),
        other in any::<Index>(),
        unknown in any::<String>(),
    ) {
        let count = plot.names.len();
        let hook = hook.index(count);
        let build = |extra: Option<Hook>, after: Option<&str>| {
            let hooks = (0..count).map(|place| {
                let made = plot.hook(place, || Ok(()));
                match after {
                    Some(name) if place == hook => made.after(name),
                    _ => made,
                }
            });
            hooks.chain(extra).fold(Lifecycle::builder(), |builder, hook| builder.hook(hook)).build()
        };
        if !plot.names.contains(&unknown) {
            let name = plot.names[hook].clone();
            let refused = HookError::Unknown { hook: name, after: unknown.clone() };
            prop_assert!(matches!(build(None, Some(&unknown)), Err(BuildError::Hook(it)) if it == refused));
        }
        let twice = &plot.names[other.index(count)];
        let refused = HookError::Duplicate(twice.clone());
        let built = build(Some(Hook::new(&**twice, || Ok(()))), None);
        prop_assert!(matches!(built, Err(BuildError::Hook(it)) if it == refused));
    }
}
