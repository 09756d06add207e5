//! The stack of another thread of this process, wherever that thread is: in an endless loop, in `malloc`,
//! with any lock held, in a system call, in a vendor's C library.
//!
//! The thread that asks sends the other one a signal. Its handler walks the stack, writes the addresses
//! into memory that was there before and is never freed, and says so; everything else (names, text) is done
//! by the thread that asks, which waits for an answer only so long. A thread that does not answer in
//! time because it blocks the signal or is deep in the kernel may answer later, and harms nobody.
//!
//! # The signal
//!
//! It is SIGURG, as in the Go runtime and for the same reasons: hardly a program has a use for it, debuggers
//! let it pass, and what nobody handles is ignored, so one too many harms nobody (a real-time signal would
//! end the process). Its action is taken when a stack is first asked for, and only if it is the default
//! one: a program's own handler is left alone, and then there are no stacks.
//!
//! A system call that the signal interrupts goes on (SA_RESTART), but for those that never do, see signal(7):
//! `nanosleep`, `poll`, `select`, `epoll_wait`, `sem_timedwait`, waits on a socket with a time limit, and their
//! like return EINTR. (Rust's `thread::sleep`, locks and channels go on by themselves.) So a stack is asked
//! for only when a handler has not returned within its limit.
//!
//! # The walk
//!
//! `_Unwind_Backtrace` of libgcc reads what compilers write for exceptions, so it needs no frame pointers. It
//! is not promised to be safe in a signal handler: it used to take the loader's lock
//! (`dl_iterate_phdr`), with which a thread that was interrupted in `malloc` could deadlock. Since gcc 12 on glibc
//! 2.35 it takes no lock and no memory: `_dl_find_object` is all that libgcc_s.so.1 calls to find its tables. With an
//! older glibc, or another unwinder (musl's, 32-bit ARM's), there are no stacks. Where code has no tables the walk ends;
//! on 64-bit ARM the few instructions through which a library's function is called (the procedure linkage table) have
//! none. Where code has wrong ones the walk can crash, as an exception through that code would.

use std::fmt;
use std::time::{Duration, Instant};

use super::symbols;
pub(crate) use super::symbols::HOW_TO_RESOLVE;

/// A thread of this process, as the system names it.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    id: libc::pid_t,
    name: String,
}

impl Thread {
    pub(crate) fn current() -> Thread {
        let current = std::thread::current();
        Thread {
            // SAFETY: a system call without arguments, which cannot fail.
            id: unsafe { libc::syscall(libc::SYS_gettid) } as libc::pid_t,
            name: current.name().unwrap_or("without a name").to_owned(),
        }
    }

    /// The stack, innermost frame first. Waits until `deadline`.
    pub(crate) fn stack(&self, deadline: Instant) -> Result<Stack, NoStack> {
        platform::ask(self.id, deadline)
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (thread {})", self.name, self.id)
    }
}

/// Addresses of instructions, innermost first.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) frames: Vec<usize>,
    /// There are more.
    pub(crate) cut: bool,
}

/// The stack of the thread with this number, a line for each frame, and how to resolve them; or why there is none.
/// Waits until `deadline`.
pub(crate) fn frames_of(thread: u32, deadline: Instant) -> Vec<String> {
    let Ok(id) = thread.try_into() else {
        return Vec::new();
    };
    let stack = platform::ask(id, deadline);
    let how = stack.is_ok().then(|| HOW_TO_RESOLVE.to_owned());
    let frames = in_words(&[stack], deadline).into_iter().flatten();
    frames.chain(how).collect()
}

/// Lines for each of these: its frames, by name as far as that can be found out by `deadline`, or why there are none.
pub(crate) fn in_words(stacks: &[Result<Stack, NoStack>], deadline: Instant) -> Vec<Vec<String>> {
    let found = stacks.iter().flatten();
    let addresses: Vec<usize> = found.flat_map(|it| &it.frames).copied().collect();
    let mut names = symbols::describe(&addresses, deadline).into_iter();
    let lines = stacks.iter().map(|stack| match stack {
        Ok(stack) => {
            let names = names.by_ref().take(stack.frames.len()).enumerate();
            let mut lines: Vec<_> = names.map(|(nth, it)| format!("{nth}: {it}")).collect();
            lines.extend(stack.cut.then(|| "and more".to_owned()));
            lines
        }
        Err(why) => vec![format!("no stack: {why}")],
    });
    lines.collect()
}

/// Why there is no stack.
#[derive(Debug)]
// Which of these there are depends on the platform.
#[allow(dead_code)]
pub(crate) enum NoStack {
    /// The thread is gone.
    Ended,
    /// It did not answer in this time; what the system says of its state.
    NoAnswer(Duration, Option<String>),
    /// Another thread's stack is being asked for.
    Busy,
    /// The program handles the signal.
    SignalTaken,
    /// The system refuses the signal, or its handler.
    System(std::io::Error),
    /// Not on this platform.
    Platform(&'static str),
}

impl fmt::Display for NoStack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoStack::Ended => formatter.write_str("the thread has ended"),
            NoStack::NoAnswer(time, state) => {
                write!(formatter, "the thread did not answer in {time:?}")?;
                match state {
                    Some(state) => write!(formatter, "; its state is {state}"),
                    None => Ok(()),
                }
            }
            NoStack::Busy => formatter.write_str("another stack is being asked for"),
            NoStack::SignalTaken => formatter.write_str("the program uses SIGURG for itself"),
            NoStack::System(error) => error.fmt(formatter),
            NoStack::Platform(why) => formatter.write_str(why),
        }
    }
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod platform {
    use std::time::Instant;

    use super::{NoStack, Stack};

    pub(crate) fn ask(_: libc::pid_t, _: Instant) -> Result<Stack, NoStack> {
        Err(NoStack::Platform(
            "stacks are to be had on 64-bit x86 and ARM with glibc only",
        ))
    }
}

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod by_signal;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
use self::by_signal as platform;

#[cfg(all(
    test,
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::io::{self, Read, Write};
    use std::os::fd::FromRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread::{self, JoinHandle};

    use crossbeam_channel::bounded;

    use super::platform::FRAMES;
    use super::*;
    use crate::os::symbols;

    /// A test that takes longer than this hangs.
    const LONG: Duration = Duration::from_secs(60);

    /// Starts a thread, and returns once it is about to do this.
    fn start<T: Send + 'static>(
        body: impl FnOnce() -> T + Send + 'static,
    ) -> (Thread, JoinHandle<T>) {
        let (say, said) = bounded(1);
        let run = move || {
            say.send(Thread::current()).unwrap();
            body()
        };
        let handle = thread::Builder::new().name("asked".to_owned()).spawn(run);
        (said.recv().unwrap(), handle.unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + LONG
    }

    /// The stack as text.
    fn text(thread: &Thread) -> String {
        let stack = thread.stack(soon()).unwrap();
        symbols::describe(&stack.frames, soon()).join("\n")
    }

    /// Asks until the thread has come to where it is to be.
    fn text_with(thread: &Thread, wanted: &str) -> String {
        let end = soon();
        loop {
            let text = text(thread);
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < end, "{wanted} is not in {text}");
        }
    }

    #[inline(never)]
    fn spins_here(stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[inline(never)]
    fn calls_what_spins(stop: &AtomicBool) {
        spins_here(stop);
        // So that it is not left before.
        std::hint::black_box(stop);
    }

    /// A thread that spins until the flag is set.
    fn spinning() -> (Thread, JoinHandle<()>, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (thread, handle) = start(move || calls_what_spins(&flag));
        (thread, handle, stop)
    }

    #[test]
    fn an_endless_loop_is_found() {
        let (thread, handle, stop) = spinning();
        let text = text_with(&thread, "touchdown::os::stack::tests::spins_here (");
        let id = thread.id.unsigned_abs();
        let lines = frames_of(id, soon());
        assert!(lines[0].starts_with("0: "), "{lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some(HOW_TO_RESOLVE));
        stop.store(true, Ordering::Relaxed);
        handle.join().unwrap();
        assert_eq!(frames_of(id, soon()), ["no stack: the thread has ended"]);
        // What called it is there as well.
        assert!(text.contains("stack::tests::calls_what_spins"), "{text}");
        assert!(thread.to_string().starts_with("asked (thread "));
    }

    fn pipe() -> (File, File) {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written there, and are nobody else's.
        unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
        }
    }

    #[test]
    fn a_read_that_blocks_goes_on_and_gets_its_data() {
        let (mut reader, mut writer) = pipe();
        let (thread, handle) = start(move || {
            let mut byte = [0];
            // Not `read_exact`, which would begin again if interrupted.
            reader.read(&mut byte).map(|count| (count, byte))
        });
        for _ in 0..20 {
            text_with(&thread, "read (");
        }
        writer.write_all(b"!").unwrap();
        assert_eq!(handle.join().unwrap().unwrap(), (1, *b"!"));
    }

    #[test]
    fn a_thread_that_waits_for_a_lock_is_found() {
        #[inline(never)]
        fn waits_for_a_lock(lock: &Mutex<u32>) -> u32 {
            *black_box(lock).lock().unwrap()
        }
        let lock = Arc::new(Mutex::new(1));
        let held = lock.lock().unwrap();
        let theirs = Arc::clone(&lock);
        let (thread, handle) = start(move || waits_for_a_lock(&theirs));
        text_with(&thread, "waits_for_a_lock");
        drop(held);
        assert_eq!(handle.join().unwrap(), 1);
    }

    #[test]
    fn a_thread_in_malloc_is_found_wherever_it_is() {
        #[inline(never)]
        fn allocates(stop: &AtomicBool) {
            let mut kept = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                kept.push(black_box(vec![0u8; 1 + kept.len() * 7919 % 5000]));
                kept.truncate(if kept.len() > 500 { 0 } else { 500 });
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let (thread, handle) = start(move || allocates(&flag));
        text_with(&thread, "allocates");
        let stacks: Vec<_> = (0..1000).map(|_| thread.stack(soon()).unwrap()).collect();
        let frames: Vec<usize> = stacks.iter().flat_map(|it| &it.frames).copied().collect();
        let names = symbols::describe(&frames, soon());
        let mut names = names.as_slice();
        let (mut in_malloc, mut without_tables) = (0, 0);
        for stack in &stacks {
            let (these, others) = names.split_at(stack.frames.len());
            if cfg!(target_arch = "aarch64") && these.len() == 1 {
                // On the way to `malloc`.
                without_tables += 1;
            } else {
                assert!(these.iter().any(|it| it.contains("allocates")), "{these:?}");
            }
            in_malloc += usize::from(these[0].contains("libc.so"));
            names = others;
        }
        assert!(in_malloc > 0);
        assert!(without_tables < 300, "{without_tables} of 1000");
        stop.store(true, Ordering::Relaxed);
        handle.join().unwrap();
    }

    #[test]
    fn a_deep_stack_is_cut() {
        #[inline(never)]
        fn deeper(depth: u32, bottom: &dyn Fn()) -> u32 {
            match depth {
                0 => bottom(),
                _ => return black_box(deeper(depth - 1, bottom)) + 1,
            }
            0
        }
        let (reached, at_bottom) = bounded(0);
        let (release, released) = bounded::<()>(0);
        let (thread, handle) = start(move || {
            deeper(200, &|| {
                reached.send(()).unwrap();
                let _ = released.recv();
            })
        });
        at_bottom.recv().unwrap();
        let stack = thread.stack(soon()).unwrap();
        assert_eq!((stack.frames.len(), stack.cut), (FRAMES, true));
        drop(release);
        assert_eq!(handle.join().unwrap(), 200);
    }

    fn block_signal(how: libc::c_int) {
        // SAFETY: a set of the calling thread's own.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGURG);
            libc::pthread_sigmask(how, &set, std::ptr::null_mut());
        }
    }

    #[test]
    fn a_thread_that_blocks_the_signal_is_not_waited_for_and_may_answer_later() {
        let (release, released) = bounded::<()>(0);
        let (reached, unblocked) = bounded(0);
        let (stop, stopped) = bounded::<()>(0);
        let (blocked, is_blocked) = bounded(0);
        let (thread, handle) = start(move || {
            block_signal(libc::SIG_BLOCK);
            blocked.send(()).unwrap();
            let _ = released.recv();
            block_signal(libc::SIG_UNBLOCK);
            reached.send(()).unwrap();
            let _ = stopped.recv();
        });
        is_blocked.recv().unwrap();
        // Other tests may have others asked at the same time.
        let why = loop {
            match thread.stack(Instant::now() + Duration::from_millis(50)) {
                Err(NoStack::Busy) => {}
                Err(why) => break why,
                Ok(stack) => panic!("{stack:?}"),
            }
        };
        assert!(matches!(why, NoStack::NoAnswer(..)), "{why}");
        assert!(why.to_string().contains("its state is "), "{why}");
        drop(release);
        unblocked.recv().unwrap();
        assert!(thread.stack(soon()).is_ok());
        drop(stop);
        handle.join().unwrap();
    }

    #[test]
    fn a_thread_that_has_ended_is_said_to() {
        let (thread, handle) = start(|| {});
        handle.join().unwrap();
        // Joined a moment before the kernel has let go of it.
        let end = soon();
        let a_moment = || Instant::now() + Duration::from_millis(100);
        while !matches!(thread.stack(a_moment()), Err(NoStack::Ended)) {
            assert!(Instant::now() < end);
        }
    }

    #[test]
    fn a_thousand_stacks_of_threads_that_come_and_go() {
        let (mut found, mut gone) = (0, 0);
        for number in 0..1000 {
            let (thread, handle) = start(move || {
                (0..number % 50).for_each(|it| drop(black_box(vec![it; 100])));
            });
            // One that ends while it is asked does not answer.
            match thread.stack(Instant::now() + Duration::from_millis(10)) {
                Ok(stack) => {
                    assert!(!stack.frames.is_empty());
                    found += 1;
                }
                Err(NoStack::Ended | NoStack::NoAnswer(..) | NoStack::Busy) => gone += 1,
                Err(why) => panic!("{why}"),
            }
            handle.join().unwrap();
        }
        assert_eq!(found + gone, 1000);
        let (thread, handle, stop) = spinning();
        text_with(&thread, "spins_here");
        stop.store(true, Ordering::Relaxed);
        handle.join().unwrap();
    }

    #[test]
    fn several_may_ask_at_once() {
        let (thread, handle, stop) = spinning();
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let thread = thread.clone();
                let ask = move || (0..50).all(|_| thread.stack(soon()).is_ok());
                thread::spawn(ask)
            })
            .collect();
        assert!(askers.into_iter().all(|it| it.join().unwrap()));
        stop.store(true, Ordering::Relaxed);
        handle.join().unwrap();
    }

    #[test]
    fn a_signal_that_nobody_asked_for_changes_nothing() {
        let (thread, handle, stop) = spinning();
        text_with(&thread, "spins_here");
        // SAFETY: a system call that takes numbers.
        let sent =
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.id, libc::SIGURG) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
        text_with(&thread, "spins_here");
        stop.store(true, Ordering::Relaxed);
        handle.join().unwrap();
    }
}
