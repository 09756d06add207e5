//! A handler's thread says that it begins to wait for its caller, and that it has waited.
//!
//! Only the thread that was given the handler says so, and only of the call that it handles. Of a thread that the
//! program has given a part of the stream to, nobody knows whether the handler waits for it. The call does not know
//! who is told, and who is told learns of no other way to wait.

use std::cell::RefCell;
use std::rc::Rc;

/// Who is told, on the thread of the handler. It may block for a moment.
pub(super) trait Told {
    fn begins_to_wait(&self);
    fn has_waited(&self);
}

thread_local! {
    static HANDLED: RefCell<Option<(usize, Rc<dyn Told>)>> = const { RefCell::new(None) };
}

/// Runs the handler of the call that has this key.
pub(super) fn handling(call: usize, told: Rc<dyn Told>, handler: impl FnOnce()) {
    HANDLED.with_borrow_mut(|it| *it = Some((call, told)));
    handler();
    HANDLED.with_borrow_mut(|it| it.take());
}

/// Waits for the caller of the call that has this key.
pub(super) fn waiting<T>(call: usize, wait: impl FnOnce() -> T) -> T {
    let told = HANDLED.with_borrow(|it| match it {
        Some((handled, told)) if *handled == call => Some(Rc::clone(told)),
        _ => None,
    });
    match told {
        None => wait(),
        Some(told) => {
            told.begins_to_wait();
            let waited = wait();
            told.has_waited();
            waited
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Counts {
        begun: Cell<u32>,
        ended: Cell<u32>,
    }

    impl Told for Counts {
        fn begins_to_wait(&self) {
            self.begun.set(self.begun.get() + 1);
        }

        fn has_waited(&self) {
            self.ended.set(self.ended.get() + 1);
        }
    }

    #[test]
    fn only_the_thread_of_the_handler_says_that_it_waits_and_only_for_its_own_caller() {
        let counts = Rc::new(Counts::default());
        let seen = || (counts.begun.get(), counts.ended.get());
        handling(1, counts.clone(), || {
            assert_eq!(waiting(1, seen), (1, 0));
            assert_eq!(waiting(2, seen), (1, 1));
            thread::scope(|scope| scope.spawn(|| waiting(1, || ())).join().unwrap());
            assert_eq!(seen(), (1, 1));
        });
        assert_eq!(waiting(1, seen), (1, 1), "the handler has ended");
    }
}
