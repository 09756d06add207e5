//! How a thread is asked for its stack: by a signal, whose handler walks it.

use std::ffi::{c_int, c_void, CStr};
use std::io;
use std::mem::zeroed;
use std::ptr::null;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

use parking_lot::Mutex;

use super::{NoStack, Stack};

/// How many frames are written down at the most. What a handler is stuck in is among the innermost
/// few; 32 reach from there to the handler through the frames that an unoptimised build has in between.
pub(crate) const FRAMES: usize = 32;

const SIGNAL: c_int = libc::SIGURG;

/// The first version whose loader finds unwind tables without a lock.
const GLIBC: (u32, u32) = (2, 35);

/// Frames of the signal handler itself that are skipped before the walk gives up looking for the
/// interrupted one. There are three.
const OWN_FRAMES: usize = 8;

/// What a [`Slot`] is at, in the low bits of its state; above them is the thread that is asked.
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERING: u32 = 2;
const ANSWERED: u32 = 3;
const BITS: u32 = 2;

/// A question and its answer.
struct Slot {
    /// A futex. The kernel's thread numbers end at 2^22, so one fits.
    state: AtomicU32,
    /// How many there are; more than `FRAMES` if there would have been more.
    count: AtomicUsize,
    frames: [AtomicUsize; FRAMES],
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            state: AtomicU32::new(IDLE),
            count: AtomicUsize::new(0),
            frames: [const { AtomicUsize::new(0) }; FRAMES],
        }
    }
}

static FIRST: Slot = Slot::new();

/// Where the signal handler finds the question. What it points at is never freed: a handler may
/// come to it at any time.
static SLOT: AtomicPtr<Slot> = AtomicPtr::new((&raw const FIRST).cast_mut());

/// Held by who asks: one thread is asked at a time.
static ASKING: Mutex<()> = Mutex::new(());

pub(crate) fn ask(thread: libc::pid_t, deadline: Instant) -> Result<Stack, NoStack> {
    let begun = Instant::now();
    let Some(_asking) = ASKING.try_lock_until(deadline) else {
        return Err(NoStack::Busy);
    };
    prepare()?;
    // SAFETY: points at `FIRST` or at what was leaked below.
    let slot = unsafe { &*SLOT.load(Ordering::Relaxed) };
    let asked = (thread as u32) << BITS | ASKED;
    // Pairs with the handler's exchange.
    slot.state.store(asked, Ordering::Release);
    // SAFETY: a system call that takes numbers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) };
    if sent != 0 {
        let error = io::Error::last_os_error();
        withdraw(slot, asked);
        return Err(match error.raw_os_error() {
            Some(libc::ESRCH) => NoStack::Ended,
            _ => NoStack::System(error),
        });
    }
    let answered = (thread as u32) << BITS | ANSWERED;
    if !wait(slot, answered, deadline) && !withdraw(slot, asked) {
        return Err(NoStack::NoAnswer(begun.elapsed(), state_of(thread)));
    }
    let count = slot.count.load(Ordering::Relaxed);
    let frames = slot.frames.iter().take(count);
    let stack = Stack {
        frames: frames.map(|it| it.load(Ordering::Relaxed)).collect(),
        cut: count > FRAMES,
    };
    slot.state.store(IDLE, Ordering::Relaxed);
    Ok(stack)
}

/// Takes the question back. True if the answer has come in the meantime.
fn withdraw(slot: &Slot, asked: u32) -> bool {
    let order = Ordering::Acquire;
    match slot.state.compare_exchange(asked, IDLE, order, order) {
        Ok(_) => false,
        Err(state) if state % (1 << BITS) == ANSWERED => true,
        Err(_) => {
            // The handler is at work on it, who knows for how long: the slot is its own from now on.
            SLOT.store(Box::leak(Box::new(Slot::new())), Ordering::Release);
            false
        }
    }
}

/// Waits until the answer is there. False if it is not in time.
fn wait(slot: &Slot, answered: u32, deadline: Instant) -> bool {
    loop {
        // Pairs with the handler's store.
        let state = slot.state.load(Ordering::Acquire);
        if state == answered {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = libc::timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // SAFETY: the futex lives for ever, the time for the length of the call. Whatever
        // ends the wait, the loop looks.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                slot.state.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                state,
                &raw const left,
            )
        };
    }
}

/// Sees to it that the signal comes to `on_signal`, and that the walk needs nothing it has not had.
fn prepare() -> Result<(), NoStack> {
    static LOCK_FREE: OnceLock<bool> = OnceLock::new();
    let lock_free = LOCK_FREE.get_or_init(|| {
        // SAFETY: glibc's own constant string.
        let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        is_lock_free(&version.to_string_lossy())
    });
    if !lock_free {
        return Err(NoStack::Platform("stacks need glibc 2.35 or later"));
    }
    let action = action(None)?;
    if action.sa_sigaction == handler() {
        return Ok(());
    }
    if action.sa_sigaction != libc::SIG_DFL {
        return Err(NoStack::SignalTaken);
    }
    // What the unwinder sets up on its first use, it sets up now.
    walk(&Slot::new(), 0);
    // SAFETY: all zeros is an action with an empty mask.
    let mut ours: libc::sigaction = unsafe { zeroed() };
    ours.sa_sigaction = handler();
    // On the alternate stack, if the thread has one: its own may be at its end, or, in a library written
    // in Go, tiny. Rust's have 8 KiB. The walk takes 3, the kernel 1 to 4 for the registers.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    let before = self::action(Some(&ours))?;
    if before.sa_sigaction != libc::SIG_DFL {
        // Somebody was faster.
        self::action(Some(&before))?;
        return Err(NoStack::SignalTaken);
    }
    Ok(())
}

fn is_lock_free(version: &str) -> bool {
    let mut numbers = version.split('.').map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= GLIBC
}

/// Sets the signal's action, if there is a new one, and returns what it was.
fn action(new: Option<&libc::sigaction>) -> Result<libc::sigaction, NoStack> {
    // SAFETY: all zeros is an action, and is overwritten.
    let mut old: libc::sigaction = unsafe { zeroed() };
    let new = new.map_or(null(), |it| it as *const _);
    // SAFETY: both point at actions or nowhere; the only handler that is ever set anew is
    // `on_signal`, which is safe in any thread at any time.
    match unsafe { libc::sigaction(SIGNAL, new, &mut old) } {
        0 => Ok(old),
        _ => Err(NoStack::System(io::Error::last_os_error())),
    }
}

fn handler() -> libc::sighandler_t {
    on_signal as *const () as libc::sighandler_t
}

/// Runs in the thread that is asked, in the middle of whatever it does: takes no lock and no memory.
extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the calling thread's own.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: points at `FIRST` or at what was leaked. The Acquire pairs with the Release of who leaked it.
    let slot = unsafe { &*SLOT.load(Ordering::Acquire) };
    // SAFETY: a system call without arguments.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
    let state = |what| thread << BITS | what;
    let (asked, answering) = (state(ASKED), state(ANSWERING));
    // Fails if nobody asks this thread any more, or if the signal is a socket's.
    let claimed =
        slot.state
            .compare_exchange(asked, answering, Ordering::Acquire, Ordering::Relaxed);
    if claimed.is_ok() {
        // SAFETY: what the kernel hands to a handler with SA_SIGINFO.
        walk(slot, unsafe { interrupted_at(context) });
        slot.state.store(state(ANSWERED), Ordering::Release);
        // SAFETY: the futex lives for ever.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                slot.state.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            )
        };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The instruction that was to be next.
///
/// # Safety
///
/// `context` is what a signal handler was given.
unsafe fn interrupted_at(context: *mut c_void) -> usize {
    // SAFETY: as promised.
    let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    return machine.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    return machine.pc as usize;
}

/// A walk under way.
struct Walk<'a> {
    slot: &'a Slot,
    /// Where the interrupted frame is, the first that is written down.
    start: usize,
    /// Of the handler's own.
    skipped: usize,
    count: usize,
}

/// Writes down the calling thread's frames from the one that is at `start`.
fn walk(slot: &Slot, start: usize) {
    // Should the walk not come past the handler's own frames, there is still this one.
    slot.frames[0].store(start, Ordering::Relaxed);
    let mut walk = Walk {
        slot,
        start,
        skipped: 0,
        count: 1,
    };
    // SAFETY: calls back with the pointer that it is given, and only until it returns.
    unsafe { _Unwind_Backtrace(on_frame, (&raw mut walk).cast()) };
    slot.count.store(walk.count, Ordering::Relaxed);
}

const GO_ON: c_int = 0;
const END_OF_STACK: c_int = 5;

unsafe extern "C" fn on_frame(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: what `walk` passed.
    let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
    let mut is_next = 0;
    // SAFETY: the unwinder's own context.
    let address = unsafe { _Unwind_GetIPInfo(context, &mut is_next) };
    if walk.skipped < OWN_FRAMES {
        walk.skipped = match address == walk.start {
            true => OWN_FRAMES,
            false => walk.skipped + 1,
        };
        let gives_up = walk.skipped == OWN_FRAMES && address != walk.start;
        return if gives_up { END_OF_STACK } else { GO_ON };
    }
    if address == 0 {
        return END_OF_STACK;
    }
    let Some(frame) = walk.slot.frames.get(walk.count) else {
        walk.count = FRAMES + 1;
        return END_OF_STACK;
    };
    // A return address may be past the end of the function that called; one less is in the call.
    let address = if is_next != 0 { address } else { address - 1 };
    frame.store(address, Ordering::Relaxed);
    walk.count += 1;
    GO_ON
}

// Of libgcc, which every Rust program on glibc is linked with.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        on_frame: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, is_next: *mut c_int) -> usize;
}

/// What the thread waits for, as the kernel says: "D (disk sleep)" is a driver's wait.
fn state_of(thread: libc::pid_t) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let state = status.lines().find_map(|it| it.strip_prefix("State:"))?;
    Some(state.trim().to_owned())
}
