//! Where the batch is in the values of a document, whose dimensions a program may move and join.

use super::Reason;

/// Where the batch is in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Behind `place` of the sample's dimensions. It is one dimension with the last `before` of these, and with the first
    /// `after` of those that follow.
    Batched { place: usize, before: usize, after: usize },
    /// A first dimension of 1 stands for it: the value is the same for each sample.
    One,
    /// Nowhere: the value is the same for each sample.
    Same,
}

/// A dimension of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    /// The one with the batch.
    Batch,
    /// One of the sample's.
    Sample(usize),
}

/// The length of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// A number.
    Fixed(i64),
    /// So many times the batch's size.
    Batch(i64),
}

impl Layout {
    /// The batch comes first.
    pub(super) const PLAIN: Self = Self::Batched { place: 0, before: 0, after: 0 };

    /// Whether samples differ.
    pub(super) fn is_batched(self) -> bool {
        matches!(self, Self::Batched { .. })
    }

    /// Whether the batch is the first dimension, alone.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::PLAIN | Self::One)
    }

    /// That of a value with these lengths, and the shape of a sample.
    pub(super) fn of(extents: &[Extent]) -> Result<(Self, Vec<i64>), Reason> {
        let fixed = |extents: &[Extent]| -> Vec<i64> {
            let length = |extent: &Extent| match extent {
                Extent::Fixed(length) => Some(*length),
                Extent::Batch(_) => None,
            };
            extents.iter().filter_map(length).collect()
        };
        let is_batch = |extent: &Extent| matches!(extent, Extent::Batch(_));
        match (extents.iter().position(is_batch), extents) {
            (None, [Extent::Fixed(1), rest @ ..]) if !rest.is_empty() => Ok((Self::One, fixed(rest))),
            (None, all) => Ok((Self::Same, fixed(all))),
            (Some(place), all) if all[place] == Extent::Batch(1) && fixed(all).len() + 1 == all.len() => {
                Ok((Self::Batched { place, before: 0, after: 0 }, fixed(all)))
            }
            _ => Err(Reason::from("its batch is joined with other dimensions")),
        }
    }

    /// That of the same elements, whose lengths were those of `shape` in this layout, with other lengths.
    pub(super) fn reshaped(self, shape: &[i64], extents: &[Extent]) -> Result<(Self, Vec<i64>), Reason> {
        let Self::Batched { place, .. } = self else { return Self::of(extents) };
        let joined = || Reason::from("it joins the batch with other dimensions");
        let at = extents.iter().position(|extent| matches!(extent, Extent::Batch(_))).ok_or_else(joined)?;
        let (Extent::Batch(times), ends) = (extents[at], [&extents[..at], &extents[at + 1..]]) else {
            return Err(joined());
        };
        let lengths = ends.map(|end| {
            let length = |extent: &Extent| match extent {
                Extent::Fixed(length) => Some(*length),
                Extent::Batch(_) => None,
            };
            end.iter().map(length).collect::<Option<Vec<i64>>>()
        });
        let [Some(first), Some(last)] = lengths else { return Err(joined()) };
        // What was before and after the batch in memory still is; what is not there now is one dimension with it.
        let all = |lengths: &[i64]| lengths.iter().try_fold(1i64, |all, length| all.checked_mul(*length));
        let quotient = |whole: &[i64], part: &[i64]| {
            let (whole, part) = all(whole).zip(all(part))?;
            (part > 0 && whole % part == 0).then(|| whole / part)
        };
        let before = quotient(shape.get(..place).unwrap_or_default(), &first).ok_or_else(joined)?;
        let after = quotient(shape.get(place..).unwrap_or_default(), &last).ok_or_else(joined)?;
        if before.checked_mul(after) != Some(times) {
            return Err(joined());
        }
        let own = |length: i64| (length > 1).then_some(length);
        let sample: Vec<i64> = first.iter().copied().chain(own(before)).chain(own(after)).chain(last).collect();
        let layout = Self::Batched {
            place: first.len() + usize::from(before > 1),
            before: usize::from(before > 1),
            after: usize::from(after > 1),
        };
        Ok((layout, sample))
    }

    /// The dimensions of a value whose samples have so many.
    pub(super) fn dims(self, rank: usize) -> Vec<Dim> {
        match self {
            Self::Batched { place, before, after } => {
                let first = (0..place.saturating_sub(before)).map(Dim::Sample);
                first.chain([Dim::Batch]).chain((place + after..rank).map(Dim::Sample)).collect()
            }
            Self::One => std::iter::once(Dim::Batch).chain((0..rank).map(Dim::Sample)).collect(),
            Self::Same => (0..rank).map(Dim::Sample).collect(),
        }
    }

    /// The lengths of a value whose samples have this shape.
    pub(super) fn extents(self, shape: &[i64]) -> Vec<Extent> {
        let length = |dim: Dim| match (dim, self) {
            (Dim::Sample(dim), _) => Extent::Fixed(shape.get(dim).copied().unwrap_or(0)),
            (Dim::Batch, Self::Batched { place, before, after }) => {
                let joined = shape.get(place.saturating_sub(before)..place + after).unwrap_or_default();
                Extent::Batch(joined.iter().fold(1, |times: i64, length| times.saturating_mul(*length)))
            }
            (Dim::Batch, _) => Extent::Fixed(1),
        };
        self.dims(shape.len()).into_iter().map(length).collect()
    }

    /// Which of the dimensions of samples of `rank` each has once the value's are in the order `order`, and the layout then.
    pub(super) fn permuted(self, rank: usize, order: &[usize]) -> Result<(Self, Vec<usize>), Reason> {
        let dims = self.dims(rank);
        let mut layout = self;
        let mut samples = Vec::new();
        for place in order {
            match (dims.get(*place), self) {
                (Some(Dim::Sample(dim)), _) => samples.push(*dim),
                (Some(Dim::Batch), Self::Batched { place, before, after }) => {
                    samples.extend(place.saturating_sub(before)..place);
                    layout = Self::Batched { place: samples.len(), before, after };
                    samples.extend(place..place + after);
                }
                (Some(Dim::Batch), _) if samples.is_empty() => {}
                _ => return Err(Reason::from("it moves a dimension of 1 that stands for the batch")),
            }
        }
        Ok((layout, samples))
    }

    /// Without a dimension of the sample, which is not one with the batch.
    pub(super) fn without(self, dim: usize) -> Self {
        match self {
            Self::Batched { place, before, after } if dim < place => Self::Batched { place: place - 1, before, after },
            other => other,
        }
    }

    /// Whether the last `count` dimensions are those of the sample.
    pub(super) fn ends_with_sample(self, rank: usize, count: usize) -> bool {
        match self {
            Self::Batched { place, after, .. } => place + after + count <= rank,
            Self::One | Self::Same => count <= rank,
        }
    }

    /// For values that differ, the number of values of a sample before the batch.
    pub(super) fn before(self, shape: &[i64]) -> Option<i64> {
        match self {
            Self::Batched { place, .. } => shape.get(..place).map(|lengths| lengths.iter().product()),
            Self::One | Self::Same => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Extent::{Batch, Fixed};

    /// Each in turn: the shape of a sample, and where the batch is.
    fn through(shape: &[i64], steps: &[&[Extent]]) -> Vec<(Layout, Vec<i64>)> {
        let mut at = (Layout::PLAIN, shape.to_vec());
        let next = |extents: &&[Extent]| {
            at = at.0.reshaped(&at.1, extents).unwrap();
            assert_eq!(at.0.extents(&at.1), *extents);
            at.clone()
        };
        steps.iter().map(next).collect()
    }

    #[test]
    fn a_batch_that_is_joined_with_positions_comes_apart_again() {
        let found = through(&[12, 16], &[&[Batch(12), Fixed(16)], &[Batch(1), Fixed(12), Fixed(16)]]);
        let joined = Layout::Batched { place: 0, before: 0, after: 1 };
        assert_eq!(found, [(joined, vec![12, 16]), (Layout::PLAIN, vec![12, 16])]);
    }

    #[test]
    fn a_batch_moves_and_is_joined_as_in_multi_head_attention() {
        // `[length, batch, features]` as `[length, batch · heads, width]`, and that as `[batch · heads, length, width]`.
        let (moved, order) = Layout::PLAIN.permuted(2, &[1, 0, 2]).unwrap();
        assert_eq!((moved, order), (Layout::Batched { place: 1, before: 0, after: 0 }, vec![0, 1]));
        let (joined, shape) = moved.reshaped(&[5, 8], &[Fixed(5), Batch(2), Fixed(4)]).unwrap();
        assert_eq!((joined, &shape[..]), (Layout::Batched { place: 1, before: 0, after: 1 }, &[5, 2, 4][..]));
        let (first, order) = joined.permuted(3, &[1, 0, 2]).unwrap();
        assert_eq!((first, order), (Layout::Batched { place: 0, before: 0, after: 1 }, vec![1, 0, 2]));
        let (apart, shape) = first.reshaped(&[2, 5, 4], &[Batch(1), Fixed(2), Fixed(5), Fixed(4)]).unwrap();
        assert_eq!((apart, &shape[..]), (Layout::PLAIN, &[2, 5, 4][..]));
        // `[length, batch, features]` as `[length · batch, features]`.
        let (rows, shape) = moved.reshaped(&[5, 8], &[Batch(5), Fixed(8)]).unwrap();
        assert_eq!((rows, &shape[..]), (Layout::Batched { place: 1, before: 1, after: 0 }, &[5, 8][..]));
    }

    #[test]
    fn what_tears_samples_apart_is_refused() {
        for extents in [&[Fixed(4), Batch(1)][..], &[Batch(3)], &[Batch(2), Fixed(3)], &[Fixed(8)]] {
            assert!(Layout::PLAIN.reshaped(&[4], extents).is_err(), "{extents:?}");
        }
    }
}
