//! Sets of closing hooks, or of start-up hooks: that their names are unique, and that their order exists.

use std::collections::HashMap;
use std::time::Duration;

use super::hook::{Hook, HookError};
use super::report::{HookReport, Outcome};
use crate::caught::caught;

/// Hooks whose names are unique and whose order exists.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: Vec<Hook>,
}

impl Hooks {
    pub(super) fn new(hooks: Vec<Hook>) -> Result<Self, HookError> {
        let mut places = HashMap::new();
        for (place, hook) in hooks.iter().enumerate() {
            if places.insert(hook.name.as_str(), place).is_some() {
                return Err(HookError::Duplicate(hook.name.clone()));
            }
        }
        let order = resolve(&hooks, &places)?;
        find_cycle(&order).map_or(Ok(()), |cycle| {
            Err(HookError::Cycle(
                cycle
                    .into_iter()
                    .map(|place| hooks[place].name.clone())
                    .collect(),
            ))
        })?;
        Ok(Self { hooks })
    }

    /// Hooks that run after none, and may share a name.
    pub(super) fn unordered(hooks: Vec<Hook>) -> Self {
        Self { hooks }
    }

    /// Whether one more may be added. It can close no cycle, since none of the others refers to it.
    pub(super) fn check(&self, hook: &Hook) -> Result<(), HookError> {
        let known = |name: &String| self.hooks.iter().any(|other| other.name == *name);
        if known(&hook.name) {
            return Err(HookError::Duplicate(hook.name.clone()));
        }
        if let Some(after) = hook.after.iter().find(|name| !known(name)) {
            return Err(HookError::Unknown {
                after: after.clone(),
                hook: hook.name.clone(),
            });
        }
        Ok(())
    }

    /// Adds one that was [checked](Self::check).
    pub(super) fn add(&mut self, hook: Hook) {
        self.hooks.push(hook);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// The longest time that all of them can take: that of those which wait for each other.
    pub(super) fn time_limit(&self) -> Duration {
        let mut ends: HashMap<&str, Duration> = HashMap::new();
        // Each round finds the end of at least one more, since there is no cycle.
        while ends.len() < self.hooks.len() {
            let before = ends.len();
            for hook in &self.hooks {
                let after: Option<Vec<Duration>> = hook
                    .after
                    .iter()
                    .map(|it| ends.get(it.as_str()).copied())
                    .collect();
                if let Some(after) = after {
                    let begin = after.into_iter().max().unwrap_or_default();
                    ends.insert(&hook.name, begin.saturating_add(hook.time_limit));
                }
            }
            if ends.len() == before {
                break;
            }
        }
        ends.into_values().max().unwrap_or_default()
    }

    pub(super) fn into_list(self) -> Vec<Hook> {
        self.hooks
    }

    /// The reports of hooks whose turn never came.
    pub(super) fn into_not_run(self) -> Vec<HookReport> {
        let not_run = |hook: Hook| {
            caught("dropping a hook", || drop(hook.work));
            HookReport {
                name: hook.name,
                outcome: Outcome::NotRun,
                took: Duration::ZERO,
            }
        };
        self.hooks.into_iter().map(not_run).collect()
    }
}

/// For each hook, the places of those it runs after.
fn resolve(hooks: &[Hook], places: &HashMap<&str, usize>) -> Result<Vec<Vec<usize>>, HookError> {
    let place_of = |hook: &Hook, after: &String| {
        places
            .get(after.as_str())
            .copied()
            .ok_or_else(|| HookError::Unknown {
                hook: hook.name.clone(),
                after: after.clone(),
            })
    };
    hooks
        .iter()
        .map(|hook| {
            hook.after
                .iter()
                .map(|after| place_of(hook, after))
                .collect()
        })
        .collect()
}

/// A cycle, if there is one: each place waits for the next, the last for the first.
fn find_cycle(order: &[Vec<usize>]) -> Option<Vec<usize>> {
    // Takes away what waits for nothing that is left, until all is gone or the rest waits for
    // itself.
    let mut left: Vec<usize> = (0..order.len()).collect();
    loop {
        let before = left.len();
        let waits = |place: &usize| order[*place].iter().any(|after| left.contains(after));
        left = left.iter().copied().filter(waits).collect();
        if left.len() == before {
            break;
        }
    }
    // Every place in `left` waits for another in `left`: following them must come round.
    let mut path = vec![*left.first()?];
    loop {
        let next = *order[*path.last()?]
            .iter()
            .find(|after| left.contains(after))?;
        if let Some(start) = path.iter().position(|place| *place == next) {
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_take_as_long_as_those_that_wait_for_each_other() {
        let hook = |name: &str, seconds| {
            Hook::new(name, || Ok(())).time_limit(Duration::from_secs(seconds))
        };
        let hooks = vec![
            hook("last", 1).after("left").after("right"),
            hook("left", 2).after("first"),
            hook("right", 20).after("first"),
            hook("first", 200),
            hook("alone", 100),
        ];
        let time = |hooks| Hooks::new(hooks).unwrap().time_limit();
        assert_eq!(time(hooks), Duration::from_secs(221));
        assert_eq!(time(Vec::new()), Duration::ZERO);
        let endless = hook("endless", 0).time_limit(Duration::MAX);
        assert_eq!(
            time(vec![hook("after", 1).after("endless"), endless]),
            Duration::MAX
        );
    }

    #[test]
    fn a_cycle_is_found_behind_hooks_that_only_lead_to_it() {
        // 0 waits for 1, and 1, 2, 3 wait for each other; 4 is free.
        let order = [vec![1], vec![4, 2], vec![3], vec![1], vec![]];
        assert_eq!(find_cycle(&order), Some(vec![1, 2, 3]));
        assert_eq!(find_cycle(&[vec![0]]), Some(vec![0]));
        assert_eq!(find_cycle(&[vec![], vec![0], vec![0, 1]]), None);
    }
}
