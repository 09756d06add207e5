//! A turn that one thread has at a time. However often it is asked for meanwhile, that makes one
//! more.

use crate::sync::Mutex;

#[derive(Default)]
pub(super) struct OneAtATime(Mutex<State>);

#[derive(Default)]
struct State {
    taken: bool,
    wanted: bool,
}

impl OneAtATime {
    /// Asks for a turn. Returns whether the caller has it. Then the caller ends it by [`over`](Self::over). If
    /// not, the thread that has it takes another.
    pub(super) fn ask(&self) -> bool {
        let mut state = self.0.lock();
        if state.taken {
            state.wanted = true;
            return false;
        }
        state.taken = true;
        true
    }

    /// Ends the turn. Returns whether the caller has to take another.
    pub(super) fn over(&self) -> bool {
        let mut state = self.0.lock();
        state.taken = std::mem::take(&mut state.wanted);
        state.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_during_a_turn_makes_one_more() {
        let turn = OneAtATime::default();
        assert!(turn.ask());
        assert!(!turn.ask() && !turn.ask());
        assert!(turn.over());
        assert!(!turn.over());
        assert!(turn.ask());
    }
}
