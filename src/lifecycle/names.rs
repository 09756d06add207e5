//! The names of threads.

/// How many bytes of a thread's name the kernel keeps: 16 with the NUL at the end (`prctl(2)`).
const THREAD_NAME: usize = 15;

/// What fits into a thread's name: a longer one without its middle, since the end is often a number that
/// tells one worker from the next. It cannot hold a NUL.
pub(super) fn thread_name(name: &str) -> String {
    let name = name.replace('\0', " ");
    if name.len() <= THREAD_NAME {
        return name;
    }
    let half = THREAD_NAME / 2;
    let is_boundary = |place: &usize| name.is_char_boundary(*place);
    let head = (0..=half).rev().find(is_boundary).unwrap_or(0);
    let tail = (name.len() - half..)
        .find(is_boundary)
        .unwrap_or(name.len());
    format!("{}~{}", &name[..head], &name[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_loses_its_middle() {
        assert_eq!(thread_name("fifteen-bytes-1"), "fifteen-bytes-1");
        assert_eq!(thread_name("temperature-probe-12"), "tempera~robe-12");
        assert_eq!(thread_name("nul\0"), "nul ");
        // Two bytes each, and no cut within one.
        assert_eq!(thread_name("ääääääääää"), "äää~äää");
        assert_eq!(thread_name("🛬🛬🛬🛬🛬"), "🛬~🛬");
    }
}
