//! Each rank's share of what all of them do together.

use std::ops::Range;

use super::ProcessGroup;

/// Which part of a sequence this rank takes: one of as many contiguous slices as there are ranks, in their order. Every
/// rank computes all of them alone, so that nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    rank: usize,
    world_size: usize,
}

impl Share {
    /// Everything: that of a single process, and of what each rank does for itself.
    pub const fn whole() -> Share {
        Share { rank: 0, world_size: 1 }
    }

    /// That of this process.
    pub fn of(group: &ProcessGroup) -> Share {
        Share::new(group.rank(), group.world_size())
    }

    /// That of `rank`, from 0, of `world_size` ranks; nothing for a rank that is not one of them.
    pub const fn new(rank: usize, world_size: usize) -> Share {
        Share { rank, world_size }
    }

    /// Whether it is everything.
    #[inline]
    pub const fn is_whole(self) -> bool {
        self.world_size == 1
    }

    /// The part of `0..count`. Those of all ranks in their order are `0..count`; their lengths differ by one at most, the
    /// longer ones come first, and they are empty where there are more ranks than items (`numpy.array_split`).
    #[inline]
    pub fn range(self, count: usize) -> Range<usize> {
        let ranks = self.world_size.max(1);
        let (least, longer) = (count / ranks, count % ranks);
        // Below `count` for each of the ranks, and so without overflow.
        let start = |rank: usize| if rank < ranks { rank * least + rank.min(longer) } else { count };
        start(self.rank)..start(self.rank.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_process_has_everything() {
        let share = Share::of(&ProcessGroup::single());
        assert_eq!((share, share.is_whole(), share.range(7), share.range(0)), (Share::whole(), true, 0..7, 0..0));
    }

    #[test]
    fn the_first_ranks_have_one_more_and_the_last_ones_may_have_none() {
        let of = |count, world_size| (0..world_size).map(move |rank| Share::new(rank, world_size).range(count));
        assert_eq!(of(8, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..8]);
        assert_eq!(of(2, 4).collect::<Vec<_>>(), [0..1, 1..2, 2..2, 2..2]);
        assert_eq!(Share::new(3, 3).range(8), 8..8, "there is no such rank");
    }

    proptest! {
        #[test]
        fn slices_are_contiguous_cover_everything_and_differ_by_one_at_most(
            count in prop_oneof![0usize..40, any::<usize>()],
            world_size in 1usize..70,
        ) {
            let slices: Vec<_> = (0..world_size).map(|rank| Share::new(rank, world_size).range(count)).collect();
            let mut end = 0;
            for slice in &slices {
                prop_assert!(slice.start == end && slice.end >= slice.start, "{:?}", slices);
                end = slice.end;
            }
            prop_assert_eq!(end, count);
            let lengths = slices.iter().map(ExactSizeIterator::len);
            prop_assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1, "{:?}", slices);
        }
    }
}
