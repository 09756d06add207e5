//! The process's heap: of few arenas, and given back to the kernel when asked.
//!
//! glibc gives threads arenas of their own, up to eight for each processor, and what is freed in one stays
//! with it. After a burst a server would hold on to the sum of what each of its threads once needed. Another libc is
//! left as it is.

use std::sync::Once;

/// The size of the stacks of threads for which nothing is said, in bytes.
pub(crate) fn default_stack_size() -> usize {
    // SAFETY: the attributes are made before they are read, and ended after.
    unsafe {
        let mut attributes = std::mem::zeroed();
        let mut size = 0;
        if libc::pthread_attr_init(&mut attributes) == 0 {
            libc::pthread_attr_getstacksize(&attributes, &mut size);
            libc::pthread_attr_destroy(&mut attributes);
        }
        size
    }
}

/// Has the threads of this process share as many arenas as there are processors, unless its environment says
/// how many. Arenas that are there already stay, so it is to be called before threads are started.
pub(crate) fn bound_arenas() {
    static BOUND: Once = Once::new();
    BOUND.call_once(|| {
        let tunables = std::env::var_os("GLIBC_TUNABLES").unwrap_or_default();
        let is_set = std::env::var_os("MALLOC_ARENA_MAX").is_some()
            || tunables
                .to_string_lossy()
                .contains("glibc.malloc.arena_max");
        if !is_set {
            share_arenas();
        }
    });
}

#[cfg(target_env = "gnu")]
fn share_arenas() {
    // SAFETY: a system call without memory; it says -1 if it does not know.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let arenas = libc::c_int::try_from(processors).unwrap_or(1).max(1);
    // SAFETY: may be called at any time; glibc takes its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
}

/// Gives the kernel back what is free in the heap. Takes some hundred microseconds for each 10 MB.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: may be called at any time, of any thread; glibc takes the lock of one arena after the other.
    unsafe { libc::malloc_trim(0) };
}

/// How many bytes of memory the process has that hold nothing, as far as that is known: what is not of files, and not in use in
/// the heap. Stacks count, too. To count what is free takes a millisecond at the most.
#[cfg(target_env = "gnu")]
pub(crate) fn unused() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<usize>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: a system call without memory.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let own = resident.checked_sub(shared)?.checked_mul(page)?;
    // SAFETY: may be called at any time; glibc takes the lock of one arena after the other. (`mallinfo2` is younger than some boards.)
    let heap = unsafe { libc::mallinfo() };
    // These are numbers of 32 bits, which go round.
    let used = u32::from_ne_bytes(heap.uordblks.to_ne_bytes());
    let mapped = u32::from_ne_bytes(heap.hblkhd.to_ne_bytes());
    let used = usize::try_from(used.checked_add(mapped)?).ok()?;
    // More than that is not counted in 32 bits.
    (own < u32::MAX as usize).then(|| own.saturating_sub(used))
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn unused() -> Option<usize> {
    None
}

#[cfg(not(target_env = "gnu"))]
fn share_arenas() {}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
