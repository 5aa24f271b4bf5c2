//! Damage to bytes that are valid.

use proptest::prelude::*;
use proptest::sample::Index;

/// One change.
#[derive(Clone, Debug)]
enum Damage {
    /// One byte.
    Set(Index, u8),
    /// One bit.
    Flip(Index, u8),
    /// Bytes between two.
    Insert(Index, Vec<u8>),
    /// Some bytes less.
    Remove(Index, u8),
    /// The end.
    Cut(Index),
    /// Some bytes again and again.
    Repeat(Index, u8, u8),
    /// A number of 2, 4 or 8 bytes that counts too much, in either order.
    Number(Index, u64, u8, bool),
    /// Another number in place of the digits of one.
    Digits(Index, String),
    /// Some bytes of another seed.
    Splice(Index, Index, u8),
}

/// Numbers at which counting goes wrong.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1 << bit) - 1),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(u64::from(u32::MAX)),
    ]
}

/// What stands in texts where a number or a name was.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        number().prop_map(|number| number.to_string()),
        number().prop_map(|number| format!("-{number}")),
        Just("99999999999999999999999999999999".to_owned()),
        Just("1e999999999".to_owned()),
        Just("1e18".to_owned()),
        Just("nan".to_owned()),
        Just("\u{0}".to_owned()),
        Just("\\u0000".to_owned()),
        Just("null".to_owned()),
        Just("..".to_owned()),
        (1usize..2000).prop_map(|depth| "[".repeat(depth)),
        (1usize..2000).prop_map(|depth| "{a=".repeat(depth)),
        proptest::collection::vec(any::<char>(), 0..6).prop_map(|text| text.into_iter().collect()),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), text()).prop_map(|(at, text)| Damage::Insert(at, text.into_bytes())),
        (at(), 1u8..64).prop_map(|(at, length)| Damage::Remove(at, length)),
        at().prop_map(Damage::Cut),
        (at(), 1u8..64, 2u8..64).prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        (at(), number(), 1u8..4, any::<bool>()).prop_map(|(at, number, size, little)| Damage::Number(
            at,
            number,
            1 << size,
            little
        )),
        (at(), text()).prop_map(|(at, text)| Damage::Digits(at, text)),
        (at(), at(), 1u8..64).prop_map(|(at, from, length)| Damage::Splice(at, from, length)),
    ]
}

/// One of `seeds` with some damage.
pub(crate) fn damaged(seeds: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = seeds.to_vec();
    (any::<Index>(), any::<Index>(), proptest::collection::vec(damage(), 1..7)).prop_map(
        move |(seed, other, damages)| {
            let mut bytes = seed.get(&seeds[..]).clone();
            for damage in damages {
                damage.apply(&mut bytes, other.get::<Vec<u8>>(&seeds[..]));
            }
            bytes
        },
    )
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>, other: &[u8]) {
        // After the last byte, too.
        let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let range = |at: usize, length: u8, bytes: &[u8]| at..(at + usize::from(length)).min(bytes.len());
        match self {
            Self::Set(at, byte) => {
                let at = place(at, bytes);
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            Self::Flip(at, bit) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Insert(at, new) => {
                let at = place(at, bytes);
                bytes.splice(at..at, new);
            }
            Self::Remove(at, length) => {
                let range = range(place(at, bytes), length, bytes);
                bytes.drain(range);
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Repeat(at, length, times) => {
                let range = range(place(at, bytes), length, bytes);
                let part = bytes[range.clone()].repeat(usize::from(times));
                bytes.splice(range, part);
            }
            Self::Number(at, number, size, little) => {
                let at = place(at, bytes);
                let size = usize::from(size);
                let text = if little {
                    number.to_le_bytes()[..size].to_vec()
                } else {
                    number.to_be_bytes()[8 - size..].to_vec()
                };
                let end = (at + size).min(bytes.len());
                bytes.splice(at..end, text);
            }
            Self::Digits(at, text) => {
                let at = place(at, bytes);
                let first = bytes.iter().skip(at).position(u8::is_ascii_digit).map(|found| at + found);
                let Some(first) = first.or_else(|| bytes.iter().position(u8::is_ascii_digit)) else { return };
                let length = bytes.iter().skip(first).take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(first..first + length, text.into_bytes());
            }
            Self::Splice(at, from, length) => {
                let part = other[range(place(from, other), length, other)].to_vec();
                let at = place(at, bytes);
                bytes.splice(at..at, part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::fuzz;

    #[test]
    fn damage_reaches_what_is_behind_the_first_bytes() {
        let (valid, deep, all) = (Cell::new(0), Cell::new(0), Cell::new(0));
        fuzz("pairs", &[b"key=12;key=3;".to_vec()], |bytes| {
            all.set(all.get() + 1);
            let text = String::from_utf8_lossy(bytes);
            deep.set(deep.get() + u32::from(text.contains("key=12") && text.len() > 40));
            let is_valid = text.split_terminator(';').all(|pair| pair.split_once('=').is_some());
            valid.set(valid.get() + u32::from(is_valid));
            is_valid
        });
        // More than the cases between two looks at the clock.
        assert!(all.get() > 1000, "{}", all.get());
        let few = all.get() / 20;
        assert!(valid.get() > few && deep.get() > few, "{} {} of {}", valid.get(), deep.get(), all.get());
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn a_reader_that_panics_is_told() {
        fuzz("fragile", &[vec![1, 2, 3, 4, 5, 6, 7, 8]], |bytes| {
            assert!(bytes.len() >= 4, "too short");
            true
        });
    }
}
