//! How this thread computes with floating-point numbers: which way it rounds, and whether it flushes denormal ones to zero.
//!
//! It is a register of the processor that any code can write, and a library that was linked with `-ffast-math` writes it when
//! it is loaded. What is computed afterwards has other bits, and nobody sees why.

/// The control bits of this thread's floating-point unit. What operations leave there, such as the flag that one was inexact,
/// is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatControl(Register);

#[cfg(target_arch = "x86_64")]
type Register = u32;

/// MXCSR without its flags: rounding, flush to zero, denormals are zero, and which exceptions are masked.
#[cfg(target_arch = "x86_64")]
const CONTROL: Register = 0xffc0;

#[cfg(target_arch = "aarch64")]
type Register = u64;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Register = ();

/// How this thread rounds, as three sums show it. To compute them costs less than a nanosecond, where to read the register takes
/// five (AMD EPYC), half of a hook that does nothing. What interrupts are masked is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding(Sums);

#[cfg(target_arch = "x86_64")]
type Sums = [u32; 4];

#[cfg(not(target_arch = "x86_64"))]
type Sums = FloatControl;

#[cfg(target_arch = "x86_64")]
impl Rounding {
    /// That of now.
    #[inline(always)]
    pub fn now() -> Self {
        use std::arch::x86_64::{__m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_set_epi32};
        // One and three quarters of its last digit, which is rounded up by all but two ways of rounding; one and a quarter, which is
        // rounded up by one way; and twice a number that is so small that it, or the sum, may be flushed to zero.
        const ONE: i32 = 0x3f80_0000;
        const SMALL: i32 = 1 << 21;
        // SAFETY: every processor of this kind has these instructions, and both types have sixteen bytes of any value.
        unsafe {
            let mut sums = _mm_castsi128_ps(_mm_set_epi32(0, SMALL, ONE, ONE));
            let added = _mm_castsi128_ps(_mm_set_epi32(0, SMALL, 0x3300_0000, 0x33c0_0000));
            std::arch::asm!("addps {}, {}", inout(xmm_reg) sums, in(xmm_reg) added, options(nomem, nostack, preserves_flags));
            Self(std::mem::transmute::<__m128i, Sums>(_mm_castps_si128(sums)))
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Rounding {
    /// That of now.
    #[inline(always)]
    pub fn now() -> Self {
        Self(FloatControl::read())
    }
}

#[cfg(target_arch = "x86_64")]
impl FloatControl {
    /// Reads it, within some nanoseconds.
    #[inline]
    pub fn read() -> Self {
        let mut register: Register = 0;
        // SAFETY: it writes the four bytes of `register`.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut register, options(nostack, preserves_flags)) };
        Self(register & CONTROL)
    }

    /// Sets it again, on this thread. Whoever changed it may have changed the x87 unit, too, which C's `fesetround` does: that
    /// gets the system's default.
    pub fn set(self) {
        const DEFAULT_X87: u16 = 0x37f;
        let (register, x87) = (self.0, DEFAULT_X87);
        // SAFETY: both are values that these registers had before; the code that the compiler makes expects them.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const register, options(nostack));
            std::arch::asm!("fldcw [{}]", in(reg) &raw const x87, options(nostack));
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl FloatControl {
    /// Reads it, within a nanosecond or two. FPCR has no flags.
    #[inline]
    pub fn read() -> Self {
        let register: Register;
        // SAFETY: it reads a register.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) register, options(nomem, nostack, preserves_flags)) };
        Self(register)
    }

    /// Sets it again, on this thread.
    pub fn set(self) {
        // SAFETY: a value that the register had before; the code that the compiler makes expects it.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) self.0, options(nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl FloatControl {
    /// Not known of this processor.
    #[inline]
    pub fn read() -> Self {
        Self(())
    }

    /// Does nothing.
    pub fn set(self) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Divides here and now: neither beforehand, nor where the compiler would rather do it.
    fn third() -> f64 {
        std::hint::black_box(std::hint::black_box(1.0) / std::hint::black_box(3.0))
    }

    #[test]
    fn the_sums_show_each_way_of_rounding() {
        let (before, to_nearest) = (FloatControl::read(), Rounding::now());
        assert_eq!(Rounding::now(), to_nearest);
        // Downward, upward, to zero, flush to zero, denormals are zero.
        for bits in [1 << 13, 2 << 13, 3 << 13, 1 << 15, 1 << 6] {
            FloatControl(before.0 | bits).set();
            let changed = Rounding::now();
            before.set();
            assert_ne!(changed, to_nearest, "{bits:x}");
        }
        assert_eq!(Rounding::now(), to_nearest);
    }

    #[test]
    fn another_rounding_is_seen_and_set_back_and_flags_are_not_looked_at() {
        const UPWARD: Register = 2 << 13;
        let (before, to_nearest) = (FloatControl::read(), third());
        assert_eq!(FloatControl::read(), before, "an inexact result changes nothing");
        FloatControl(before.0 | UPWARD).set();
        let (changed, upward) = (FloatControl::read(), third());
        before.set();
        assert_ne!(changed, before);
        assert!(upward > to_nearest);
        assert_eq!((FloatControl::read(), third()), (before, to_nearest));
    }
}
