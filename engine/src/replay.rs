//! The anti-replay window of one inbound SA (RFC 4303 section 3.4.3).

/// Packets (RFC 4303 section 3.4.3). Never off: what an attacker records could be sent again at any time.
pub const MINIMUM_WINDOW: usize = 32;
/// Ours: a bitmap of 512 bytes an SA is the most that reordering on any path has been seen to need.
pub const MAXIMUM_WINDOW: usize = 4096;

const WORD: u64 = u64::BITS as u64;
const LOW_BITS: u32 = 32;

/// Which sequence numbers have arrived: the highest, and one bit for each of the `size` numbers up to it.
///
/// `check` and `accept` are apart because only an authenticated packet may move the window: check, verify the
/// ICV, then accept. The bitmap is a ring (RFC 6479), so that moving on clears words and shifts none.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    size: u64,
    highest: u64,
    ring: Box<[u64]>,
}

impl ReplayWindow {
    /// An empty window of `size` packets; None unless there are `MINIMUM_WINDOW` to `MAXIMUM_WINDOW`.
    #[must_use]
    pub fn new(size: usize) -> Option<Self> {
        if !(MINIMUM_WINDOW..=MAXIMUM_WINDOW).contains(&size) {
            return None;
        }
        // A window that begins within a word ends within another; a power of two makes the place a mask.
        let words = (size.div_ceil(WORD as usize) + 1).next_power_of_two();
        Some(Self { size: size as u64, highest: 0, ring: vec![0; words].into() })
    }

    /// The highest number that was accepted.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `sequence` is new: beyond the window, or within it and not seen. 0 is never sent.
    #[must_use]
    pub fn check(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return true;
        }
        let behind = self.highest - sequence;
        sequence > 0 && behind < self.size && self.ring[self.place(sequence)] & bit(sequence) == 0
    }

    /// Mark an authenticated packet's number as seen; false, and no change, if it was not new.
    pub fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let words = self.ring.len() as u64;
            let (from, to) = (self.highest / WORD, sequence / WORD);
            for word in from + 1..=to.min(from + words) {
                self.ring[word as usize & (self.ring.len() - 1)] = 0;
            }
            self.highest = sequence;
        } else if !self.check(sequence) {
            return false;
        }
        let place = self.place(sequence);
        self.ring[place] |= bit(sequence);
        true
    }

    /// The 64-bit number of which a packet carries only the `low` half (RFC 4303 appendix A2.2).
    ///
    /// The number is the one nearest to the window: one in it, or else ahead of it, but never beyond the last
    /// of 64 bits. What this guesses is proven by the ICV, which covers the high half too.
    #[must_use]
    pub const fn extend(&self, low: u32) -> u64 {
        let high = self.highest >> LOW_BITS;
        let bottom = (self.highest as u128 + 1).saturating_sub(self.size as u128) as u64;
        let number = high << LOW_BITS | low as u64;
        if number < bottom {
            return if high < u32::MAX as u64 { number + (1 << LOW_BITS) } else { number };
        }
        let least = if bottom > 1 { bottom } else { 1 };
        match number.checked_sub(1 << LOW_BITS) {
            Some(lower) if lower >= least => lower,
            _ => number,
        }
    }

    fn place(&self, sequence: u64) -> usize {
        (sequence / WORD) as usize & (self.ring.len() - 1)
    }
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_windows_that_are_a_window_can_be_made() {
        for (size, possible) in [(0, false), (31, false), (32, true), (4096, true), (4097, false)] {
            assert_eq!(ReplayWindow::new(size).is_some(), possible, "{size}");
        }
    }

    #[test]
    fn the_last_number_of_all_can_be_reached() {
        let mut window = ReplayWindow::new(64).expect("a size that can be");
        assert!(window.accept(u64::MAX));
        assert!(!window.accept(u64::MAX));
        assert!(window.accept(u64::MAX - 63));
        assert!(!window.check(u64::MAX - 64));
        assert_eq!(window.extend(u32::MAX), u64::MAX);
        assert_eq!(window.extend(0), 0xFFFF_FFFF_0000_0000);
    }
}
