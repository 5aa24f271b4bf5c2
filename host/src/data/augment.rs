//! Random changes to images of the training split, new in each epoch: a function of seed, epoch and sample, so that a
//! run that resumes in the middle of an epoch sees the same images.

use rand_pcg::{Pcg64, rand_core::Rng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::DataError;
use super::dataset::row_length;
use super::order::{Purpose, generator};
use crate::torch::values::{fill, slice};

/// A random change of a normalized image. Filled pixels are 0, the mean of the training split under `standard`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Augment {
    /// Adds a border.
    Pad {
        /// Its width in pixels, on every side.
        #[schemars(range(min = 1))]
        padding: u32,
    },
    /// Cuts the original size out of a padded image, at a random place.
    RandomCrop {},
    /// Mirrors an image.
    RandomFlip {
        /// The axis.
        #[serde(default)]
        axis: Axis,
        /// The probability of the change.
        #[serde(default = "half")]
        p: f64,
    },
    /// Fills a random rectangle (Zhong et al. 2017).
    RandomErase {
        /// The probability of the change.
        #[serde(default = "half")]
        p: f64,
        /// The smallest and the largest share of the image's area.
        #[serde(default = "erased_area")]
        area: [f64; 2],
    },
}

/// A direction in an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Left and right swap places.
    #[default]
    Horizontal,
    /// Top and bottom swap places.
    Vertical,
}

fn half() -> f64 {
    0.5
}

fn erased_area() -> [f64; 2] {
    [0.02, 0.2]
}

/// The smallest and the largest ratio of height to width of an erased rectangle, as in the paper.
const ERASED_RATIO: [f64; 2] = [0.3, 1.0 / 0.3];

/// How many rectangles are tried until one fits into the image, as in the paper's code.
const ERASE_ATTEMPTS: usize = 10;

/// Changes for images of one shape, and the seed of their randomness.
#[derive(Debug)]
pub struct Augmentation {
    steps: Vec<Augment>,
    channels: usize,
    height: usize,
    width: usize,
    seed: u64,
}

impl Augmentation {
    /// For samples of `sample_shape`, which are `[channels, height, width]`; `None` if there are no changes.
    ///
    /// # Errors
    ///
    /// Samples that are not images, numbers out of range, and a padding without a crop after it.
    pub(super) fn new(steps: &[Augment], sample_shape: &[i64], seed: u64) -> Result<Option<Augmentation>, DataError> {
        if steps.is_empty() {
            return Ok(None);
        }
        let wrong = |option: &str, value: String, expected| {
            Err(DataError::Option { option: format!("data.augment{option}"), value, expected })
        };
        let [channels, height, width] = *sample_shape else {
            let expected = "omitted for samples that are not images; an image has the shape [channels, height, width]";
            return wrong("", format!("{} changes for samples of shape {sample_shape:?}", steps.len()), expected);
        };
        let mut padded = false;
        for (index, step) in steps.iter().enumerate() {
            let at = |key: &str| format!(".{index}.{key}");
            match step {
                Augment::Pad { padding } => {
                    if !(1..=4096).contains(padding) {
                        return wrong(&at("padding"), padding.to_string(), "between 1 and 4096");
                    }
                    padded = true;
                }
                Augment::RandomCrop {} => padded = false,
                Augment::RandomFlip { p, .. } | Augment::RandomErase { p, .. } if !(0.0..=1.0).contains(p) => {
                    return wrong(&at("p"), p.to_string(), "between 0 and 1");
                }
                Augment::RandomFlip { .. } => {}
                Augment::RandomErase { area: [least, largest], .. } => {
                    if !(*least > 0.0 && least <= largest && *largest < 1.0) {
                        let value = format!("[{least}, {largest}]");
                        return wrong(&at("area"), value, "two ascending shares above 0 and below 1");
                    }
                }
            }
        }
        if padded {
            let expected = "followed by `{ type = \"random_crop\" }`, since the model takes images of one size";
            return wrong("", "pad".to_owned(), expected);
        }
        let [channels, height, width] = [channels, height, width].map(|length| usize::try_from(length).unwrap_or(0));
        Ok(Some(Augmentation { steps: steps.to_vec(), channels, height, width, seed }))
    }

    /// New images of an epoch from `inputs`, `[size, channels, height, width]` in memory: those of the samples at
    /// `indices`.
    pub(super) fn apply(&self, inputs: &Tensor, indices: &[u32], epoch: u64) -> Result<Tensor, DataError> {
        let shape = inputs.size();
        let length = row_length(&shape[1..]);
        // SAFETY: the batch was gathered by this thread, which does not write to it.
        let Some(stored) = (unsafe { slice::<f32>(inputs) }) else {
            return Ok(inputs.shallow_clone());
        };
        let (mut image, mut spare) = (Vec::new(), Vec::new());
        fill(&shape, |values: &mut [f32]| {
            let rows = values.chunks_exact_mut(length.max(1)).zip(stored.chunks_exact(length.max(1)));
            for (index, (values, stored)) in indices.iter().zip(rows) {
                image.clear();
                image.extend_from_slice(stored);
                let mut generator = generator(self.seed, Purpose::Augment, (epoch << 32) | u64::from(*index));
                self.change(&mut image, &mut spare, &mut generator);
                values.copy_from_slice(&image);
            }
            Ok(())
        })
    }

    /// Applies every step to one image; `spare` is scratch space.
    fn change(&self, image: &mut Vec<f32>, spare: &mut Vec<f32>, generator: &mut Pcg64) {
        let (mut height, mut width) = (self.height, self.width);
        for step in &self.steps {
            match step {
                Augment::Pad { padding } => {
                    let padding = *padding as usize;
                    let (high, wide) = (height + 2 * padding, width + 2 * padding);
                    spare.clear();
                    spare.resize(self.channels * high * wide, 0.0);
                    for (channel, values) in image.chunks_exact(height * width).enumerate() {
                        for (row, values) in values.chunks_exact(width).enumerate() {
                            let start = (channel * high + row + padding) * wide + padding;
                            spare[start..start + width].copy_from_slice(values);
                        }
                    }
                    std::mem::swap(image, spare);
                    (height, width) = (high, wide);
                }
                Augment::RandomCrop {} => {
                    let top = below(generator, height - self.height + 1);
                    let left = below(generator, width - self.width + 1);
                    spare.clear();
                    for values in image.chunks_exact(height * width) {
                        for row in values.chunks_exact(width).skip(top).take(self.height) {
                            spare.extend_from_slice(&row[left..left + self.width]);
                        }
                    }
                    std::mem::swap(image, spare);
                    (height, width) = (self.height, self.width);
                }
                Augment::RandomFlip { axis, p } => {
                    if unit(generator) < *p {
                        for values in image.chunks_exact_mut(height * width) {
                            match axis {
                                Axis::Horizontal => values.chunks_exact_mut(width).for_each(<[f32]>::reverse),
                                Axis::Vertical => {
                                    values.reverse();
                                    values.chunks_exact_mut(width).for_each(<[f32]>::reverse);
                                }
                            }
                        }
                    }
                }
                Augment::RandomErase { p, area } => {
                    if unit(generator) < *p {
                        erase(image, (height, width), *area, generator);
                    }
                }
            }
        }
    }
}

/// Sets a rectangle of a random area and ratio to zero in every channel.
fn erase(image: &mut [f32], (height, width): (usize, usize), area: [f64; 2], generator: &mut Pcg64) {
    for _ in 0..ERASE_ATTEMPTS {
        let pixels = (height * width) as f64 * between(generator, area);
        let ratio = between(generator, ERASED_RATIO.map(f64::ln)).exp();
        let high = (pixels * ratio).sqrt().round() as usize;
        let wide = (pixels / ratio).sqrt().round() as usize;
        if high == 0 || wide == 0 || high > height || wide > width {
            continue;
        }
        let (top, left) = (below(generator, height - high + 1), below(generator, width - wide + 1));
        for values in image.chunks_exact_mut(height * width) {
            for row in values.chunks_exact_mut(width).skip(top).take(high) {
                row[left..left + wide].fill(0.0);
            }
        }
        return;
    }
}

/// A whole number below `limit`, which is at least one.
fn below(generator: &mut Pcg64, limit: usize) -> usize {
    // The high half of a 128-bit product maps 64 random bits to 0..limit; the bias is below limit / 2^64.
    ((u128::from(generator.next_u64()) * limit as u128) >> 64) as usize
}

/// A number of 0 or more and less than 1, of 53 random bits.
fn unit(generator: &mut Pcg64) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn between(generator: &mut Pcg64, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * unit(generator)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: [i64; 3] = [2, 3, 4];

    fn augmentation(steps: &str) -> Result<Option<Augmentation>, DataError> {
        #[derive(Deserialize)]
        struct Steps {
            augment: Vec<Augment>,
        }
        let steps: Steps = toml::from_str(&format!("augment = [{steps}]")).unwrap();
        Augmentation::new(&steps.augment, &SHAPE, 7)
    }

    /// Each image holds the numbers from 1 on.
    fn images(count: i64) -> Tensor {
        let one = Tensor::arange(24, (tch::Kind::Float, tch::Device::Cpu)) + 1.0;
        one.reshape(SHAPE).unsqueeze(0).repeat([count, 1, 1, 1])
    }

    fn changed(steps: &str, indices: &[u32], epoch: u64) -> Vec<Vec<f32>> {
        let augmentation = augmentation(steps).unwrap().unwrap();
        let result = augmentation.apply(&images(indices.len() as i64), indices, epoch).unwrap();
        Vec::try_from(result.reshape([indices.len() as i64, -1])).unwrap()
    }

    #[test]
    fn flips_mirror_every_channel() {
        let horizontal = changed("{ type = \"random_flip\", p = 1.0 }", &[0], 1);
        assert_eq!(horizontal[0][..8], [4.0, 3.0, 2.0, 1.0, 8.0, 7.0, 6.0, 5.0]);
        assert_eq!(horizontal[0][12..16], [16.0, 15.0, 14.0, 13.0]);
        let vertical = changed("{ type = \"random_flip\", axis = \"vertical\", p = 1.0 }", &[0], 1);
        assert_eq!(vertical[0][..8], [9.0, 10.0, 11.0, 12.0, 5.0, 6.0, 7.0, 8.0]);
        let none = changed("{ type = \"random_flip\", p = 0.0 }", &[0], 1);
        assert_eq!(none[0], changed("{ type = \"random_flip\", p = 0.0 }", &[5], 3)[0]);
    }

    #[test]
    fn there_may_be_no_image() {
        let augmentation = augmentation("{ type = \"random_erase\" }").unwrap().unwrap();
        let none = augmentation.apply(&images(3).narrow(0, 1, 0), &[], 1).unwrap();
        assert_eq!((none.size(), none.kind()), (vec![0, 2, 3, 4], tch::Kind::Float));
    }

    #[test]
    fn a_crop_of_a_padded_image_moves_it_by_at_most_the_padding() {
        let all =
            changed("{ type = \"pad\", padding = 1 }, { type = \"random_crop\" }", &(0..200).collect::<Vec<_>>(), 1);
        let mut corners = std::collections::BTreeSet::new();
        for image in &all {
            // Where the pixel 6 of the first channel, in the middle, came to lie.
            let place = image[..12].iter().position(|value| *value == 6.0).unwrap();
            corners.insert((place / 4, place % 4));
        }
        let expected: std::collections::BTreeSet<_> =
            (0..3).flat_map(|row| (0..3).map(move |column| (row, column))).collect();
        assert_eq!(corners, expected, "every place occurs among 200");
    }

    #[test]
    fn an_erased_rectangle_is_the_same_in_every_channel() {
        let all = changed("{ type = \"random_erase\", p = 1.0, area = [0.2, 0.4] }", &(0..50).collect::<Vec<_>>(), 1);
        let mut erased = 0;
        for image in &all {
            let holes: Vec<bool> = image.iter().map(|value| *value == 0.0).collect();
            assert_eq!(holes[..12], holes[12..]);
            let count = holes[..12].iter().filter(|hole| **hole).count();
            assert!((1..=6).contains(&count) || count == 0, "{count}");
            erased += usize::from(count > 0);
        }
        assert!(erased > 40, "{erased}");
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let message = |steps: &str| augmentation(steps).unwrap_err().to_string();
        assert!(message("{ type = \"pad\", padding = 2 }").contains("followed by `{ type = \"random_crop\" }`"));
        assert!(message("{ type = \"random_flip\", p = 1.5 }").contains("`data.augment.0.p` = `1.5`"));
        assert!(message("{ type = \"random_erase\", area = [0.5, 0.1] }").contains("data.augment.0.area"));
        let steps = [Augment::RandomCrop {}];
        let error = Augmentation::new(&steps, &[64], 0).unwrap_err().to_string();
        assert!(error.contains("[channels, height, width]"), "{error}");
        assert!(Augmentation::new(&[], &[64], 0).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn a_sample_looks_the_same_in_any_batch_and_different_in_another_epoch(
            indices in prop::collection::vec(0u32..1000, 1..10),
            epoch in 1u64..1000,
        ) {
            let steps = "{ type = \"pad\", padding = 2 }, { type = \"random_crop\" }, { type = \"random_flip\" }, { type = \"random_erase\" }";
            let together = changed(steps, &indices, epoch);
            for (index, image) in indices.iter().zip(&together) {
                prop_assert_eq!(image, &changed(steps, &[*index], epoch)[0]);
            }
            let many: Vec<u32> = (0..20).collect();
            prop_assert_ne!(changed(steps, &many, epoch), changed(steps, &many, epoch + 1));
        }
    }
}
