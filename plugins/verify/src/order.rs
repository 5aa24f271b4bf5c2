//! Dimensions in another order.

/// The values of a tensor of `shape` with its dimensions in the order `dims`: for each of the result, that of `values`.
pub fn reordered<T: Copy>(values: &[T], shape: &[i64], dims: &[usize]) -> Vec<T> {
    if dims.is_sorted() {
        return values.to_vec();
    }
    let mut indices = vec![0usize];
    for dim in dims {
        let length = shape.get(*dim).copied().unwrap_or(1).max(0) as usize;
        let stride = shape.iter().skip(dim + 1).product::<i64>().max(0) as usize;
        indices = indices.into_iter().flat_map(|base| (0..length).map(move |step| base + step * stride)).collect();
    }
    indices.into_iter().filter_map(|index| values.get(index).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_change_places() {
        assert_eq!(reordered(&[1, 2, 3, 4, 5, 6], &[2, 3], &[1, 0]), [1, 4, 2, 5, 3, 6]);
        assert_eq!(reordered(&[1, 2, 3, 4], &[1, 2, 2], &[0, 2, 1]), [1, 3, 2, 4]);
        assert_eq!(reordered(&[1, 2], &[2], &[0]), [1, 2]);
    }
}
