//! The order of a value's dimensions in memory.
//!
//! The graph orders the dimensions of a sample as PyTorch does, channels first; the runtime's windows need channels
//! last. Each value knows its layout, operators use it as it is if they can, and only one that cannot pays for a
//! transpose.

/// The layout of a value in memory, after the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// For each dimension in memory, the dimension of the graph's value.
    Order(Vec<usize>),
    /// A vector of the values of an image or sequence of `shape`, flattened in the memory order `order`.
    Flat {
        /// The shape before flattening, in the graph's order.
        shape: Vec<i64>,
        /// As in [`Layout::Order`].
        order: Vec<usize>,
    },
}

impl Layout {
    /// The graph's order.
    pub(crate) fn plain(rank: usize) -> Layout {
        Layout::Order((0..rank).collect())
    }

    /// The first dimension moved to the end.
    pub(crate) fn channels_last(rank: usize) -> Layout {
        Layout::Order((1..rank).chain([0]).collect())
    }
}

/// For each element in memory, the index of the graph's element.
pub(crate) fn element_order(shape: &[i64], order: &[usize]) -> Vec<usize> {
    let lengths: Vec<usize> = order.iter().map(|dim| shape[*dim] as usize).collect();
    let strides: Vec<usize> = order.iter().map(|dim| shape[dim + 1..].iter().product::<i64>() as usize).collect();
    let mut indices = vec![0];
    for (length, stride) in lengths.into_iter().zip(strides) {
        indices = indices.into_iter().flat_map(|base| (0..length).map(move |step| base + step * stride)).collect();
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_in_memory_know_their_place_in_the_graph() {
        assert_eq!(element_order(&[2, 3], &[0, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(element_order(&[2, 3], &[1, 0]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(element_order(&[2, 1, 2], &[1, 2, 0]), [0, 2, 1, 3]);
    }
}
