//! Where in the code a thread of this process is, for those who have to name one that does not go on.
//!
//! What finds it out is src/os/stack.rs, which is there with the feature `server`. Without it nobody knows.

use std::time::Instant;

/// A thread that can be asked where it is.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    #[cfg(feature = "server")]
    thread: crate::os::stack::Thread,
}

impl Thread {
    pub(crate) fn current() -> Thread {
        Thread {
            #[cfg(feature = "server")]
            thread: crate::os::stack::Thread::current(),
        }
    }

    /// Its stack, a line for each frame, the innermost first; or why there is none. Waits for the thread until `deadline`.
    #[cfg(feature = "server")]
    pub(crate) fn stack(&self, deadline: Instant) -> Vec<String> {
        use crate::os::symbols;
        match self.thread.stack(deadline) {
            Ok(stack) => {
                let names = symbols::describe(&stack.frames, deadline).into_iter();
                let frames = names.enumerate();
                let mut lines: Vec<_> = frames.map(|(nth, it)| format!("  {nth}: {it}")).collect();
                lines.extend(stack.cut.then(|| "  and more".to_owned()));
                lines.push(symbols::HOW_TO_RESOLVE.to_owned());
                lines
            }
            Err(why) => vec![format!("  no stack: {why}")],
        }
    }

    #[cfg(not(feature = "server"))]
    pub(crate) fn stack(&self, _: Instant) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    #[cfg_attr(miri, ignore = "Miri has no stacks")]
    fn a_thread_that_blocks_is_found() {
        #[inline(never)]
        fn blocks_here(until: &std::sync::mpsc::Receiver<()>) {
            let _ = until.recv();
        }
        let (go_on, until) = channel::<()>();
        let (send, thread) = channel();
        let blocked = std::thread::spawn(move || {
            send.send(Thread::current()).unwrap();
            blocks_here(&until);
        });
        let thread: Thread = thread.recv().unwrap();
        let found = || thread.stack(Instant::now() + Duration::from_secs(5));
        let start = Instant::now();
        while !found().iter().any(|it| it.contains("blocks_here")) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", found());
        }
        drop(go_on);
        blocked.join().unwrap();
    }
}
