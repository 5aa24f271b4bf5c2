//! A line as a picture: TensorBoard only has a page for precision-recall curves, not for other lines.

/// Pixels.
pub(crate) const SIZE: [usize; 2] = [300, 400];

const WHITE: [u8; 3] = [255; 3];
const GRID: [u8; 3] = [224; 3];
const FRAME: [u8; 3] = [96; 3];
const LINE: [u8; 3] = [31, 119, 180];

/// The start and end of an axis: 0 and 1 for shares.
pub(crate) fn range(values: &[f64]) -> [f64; 2] {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high || (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high) {
        [0.0, 1.0]
    } else if low == high {
        [low - 0.5, high + 0.5]
    } else {
        [low, high]
    }
}

/// The line through the points in their order, in a frame with quarters, as RGB rows from the top. Points that are NaN
/// or infinite interrupt it.
pub(crate) fn line(x: &[f64], y: &[f64]) -> Vec<u8> {
    let [height, width] = SIZE;
    let mut pixels = WHITE.repeat(height * width);
    for quarter in 0..=4 {
        let color = if matches!(quarter, 0 | 4) { FRAME } else { GRID };
        let (row, column) = ((height - 1) * quarter / 4, (width - 1) * quarter / 4);
        (0..width).for_each(|column| dot(&mut pixels, row, column, color));
        (0..height).for_each(|row| dot(&mut pixels, row, column, color));
    }
    let ([left, right], [bottom, top]) = (range(x), range(y));
    let place = |(x, y): (&f64, &f64)| {
        let across = (x - left) / (right - left) * (width - 1) as f64;
        let down = (top - y) / (top - bottom) * (height - 1) as f64;
        (across.is_finite() && down.is_finite()).then_some((down, across))
    };
    let points: Vec<_> = x.iter().zip(y).map(place).collect();
    for pair in points.windows(2) {
        let &[Some(from), Some(to)] = pair else { continue };
        let steps = ((to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil() as usize).clamp(1, height + width);
        for step in 0..=steps {
            let share = step as f64 / steps as f64;
            let at = |from: f64, to: f64| (from + (to - from) * share).round() as usize;
            let (row, column) = (at(from.0, to.0), at(from.1, to.1));
            for (row, column) in [(row, column), (row + 1, column), (row, column + 1)] {
                dot(&mut pixels, row, column, LINE);
            }
        }
    }
    pixels
}

fn dot(pixels: &mut [u8], row: usize, column: usize, color: [u8; 3]) {
    let [height, width] = SIZE;
    if row < height
        && column < width
        && let Some(place) = pixels.get_mut((row * width + column) * 3..)
    {
        place.iter_mut().zip(color).for_each(|(place, value)| *place = value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let pixels = line(&[0.0, 1.0], &[0.0, 1.0]);
        let [height, width] = SIZE;
        let at = |row: usize, column: usize| &pixels[(row * width + column) * 3..][..3];
        assert_eq!((at(height - 1, 0), at(0, width - 1)), (&LINE[..], &LINE[..]));
        assert_eq!(at(0, 0), FRAME);
        assert_eq!(at(20, 20), WHITE);
    }

    #[test]
    fn what_is_no_number_draws_nothing() {
        assert_eq!(line(&[0.0, f64::NAN, 1.0], &[0.0, 0.5, f64::INFINITY]), line(&[], &[]));
        assert_eq!(range(&[f64::NAN]), [0.0, 1.0]);
        assert_eq!(range(&[3.0, 3.0]), [2.5, 3.5]);
        assert_eq!(range(&[-1.0, 4.0]), [-1.0, 4.0]);
    }
}
