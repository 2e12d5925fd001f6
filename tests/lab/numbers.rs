//! Numbers that look random and come back.

/// A small generator (xorshift64*), so that a failure comes back with the same numbers. It must not begin with 0.
#[derive(Clone, Copy)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// An index into what has so many.
    pub fn at(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}
