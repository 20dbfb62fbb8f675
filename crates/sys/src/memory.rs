//! Memory of a process whose allocator is mimalloc. It must not allocate.

use std::io;

/// Has the kernel give this process ordinary pages from now on, and its children as well. The allocator asks for huge ones, of 2 MiB: one byte in each
/// of the places where it keeps sizes and threads apart, and a process that does nothing weighs 10 MiB more.
///
/// # Errors
///
/// The kernel does not know the request (older than Linux 3.15); everything works all the same.
pub fn small_pages() -> io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

/// Gives back to the system what this thread has freed, and what no thread uses. Mimalloc does that by itself only where more is asked for, so
/// a process that rests after a burst of work would keep it. Takes about a millisecond for each 100 MiB.
pub fn give_back() {
    // JUSTIFICATION: the allocator's crates have no safe function for it.
    // SAFETY: takes no pointer, and may be called by any thread at any time.
    #[expect(unsafe_code, reason = "the allocator is C")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn pages_are_small_from_then_on() {
        super::small_pages().unwrap();
        assert!(nix::sys::prctl::get_thp_disable().unwrap());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])), "{status}");
    }

    #[test]
    fn what_was_freed_goes_back_to_the_system() {
        let before = resident_pages();
        let much: Vec<Vec<u8>> = (0..100_000).map(|_| vec![1; 500]).collect();
        let full = resident_pages() - before;
        drop(much);
        super::give_back();
        let left = resident_pages().saturating_sub(before);
        assert!(left < full / 4, "of {full} pages {left} are left");
    }
}
