//! A folder of PNG and JPEG images, one folder per class.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Pool, Pools};
use crate::data::options::{Color, ImagesOptions};
use crate::data::rows::Rows;
use crate::data::split::Place;
use crate::data::{DataError, Source, Target, Targets};

/// Finds the images; they are decoded when they are needed.
pub(in crate::data) fn read(options: &ImagesOptions, source: Source<'_>) -> Result<Pools, DataError> {
    let Source::Folder(folder) = source else {
        let problem = "is a folder, but data in memory must be a file";
        return Err(DataError::malformed(&options.path, problem));
    };
    // As many threads as cores decode; the loop runs on other threads.
    let workers = ThreadPoolBuilder::new()
        .thread_name(|index| format!("decoder-{index}"))
        .build()
        .map_err(|error| DataError::WorkerNotStarted { source: std::io::Error::other(error) })?;
    let workers = Arc::new(workers);
    let main_path = folder.join(&options.path);
    let names = classes(&main_path)?;
    let mut given = BTreeMap::new();
    let mut held_out = BTreeMap::new();
    let pool = |path: PathBuf| pool(path, &names, options, &workers);
    for (name, split) in &options.splits {
        match Place::of(name, split.fraction, split.stratified, split.path.as_deref())? {
            Place::Given(path) => drop(given.insert(name.clone(), (pool(folder.join(path))?, !split.stratified))),
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let main = pool(main_path)?;
    let target = Target::Classes { count: names.len(), names, shape: Vec::new() };
    Ok(Pools { main, given, held_out, target })
}

/// The names of the folders in a folder, in alphabetical order.
fn classes(folder: &Path) -> Result<Vec<String>, DataError> {
    let names: Vec<String> = entries(folder)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if names.is_empty() {
        return Err(DataError::malformed(folder, "has no folders: each class needs one"));
    }
    Ok(names)
}

/// The visible content of a folder, in alphabetical order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = |source| DataError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            entries.push(path);
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].iter().any(|known| extension == *known))
}

fn pool(
    folder: PathBuf,
    names: &[String],
    options: &ImagesOptions,
    workers: &Arc<ThreadPool>,
) -> Result<Pool, DataError> {
    if let Some(unknown) = classes(&folder)?.iter().find(|name| !names.contains(name)) {
        let problem = format!("has the class `{unknown}`, which is not in the training data");
        return Err(DataError::malformed(&folder, &problem));
    }
    let mut files = Vec::new();
    let mut targets = Vec::new();
    for (class, name) in (0..).zip(names) {
        let class_folder = folder.join(name);
        if !class_folder.is_dir() {
            continue;
        }
        let images: Vec<PathBuf> = entries(&class_folder)?.into_iter().filter(|path| is_image(path)).collect();
        if images.is_empty() {
            return Err(DataError::malformed(&class_folder, "has no `.png`, `.jpg` or `.jpeg` file"));
        }
        targets.resize(targets.len() + images.len(), class);
        files.extend(images);
    }
    if files.is_empty() {
        return Err(DataError::Empty { path: folder });
    }
    if u32::try_from(files.len()).is_err() {
        return Err(DataError::TooManySamples { limit: u32::MAX as usize });
    }
    let (height, width) = match options.resize {
        Some([0, _] | [_, 0]) => {
            return Err(DataError::Option {
                option: "data.resize".to_owned(),
                value: format!("{:?}", options.resize.unwrap_or_default()),
                expected: "height and width of at least 1",
            });
        }
        Some([height, width]) => (height, width),
        None => common_size(&files, workers)?,
    };
    let channels = match options.color {
        Color::Rgb => 3,
        Color::Gray => 1,
    };
    let sample_shape = vec![channels, i64::from(height), i64::from(width)];
    let images = Images {
        files,
        height,
        width,
        color: options.color,
        resize: options.resize.is_some(),
        workers: Arc::clone(workers),
    };
    Ok(Pool { path: folder, rows: Arc::new(images), sample_shape, targets: Targets::classes(targets) })
}

/// The common size (height and width) of all images, from their headers.
fn common_size(files: &[PathBuf], workers: &ThreadPool) -> Result<(u32, u32), DataError> {
    let sizes: Vec<(u32, u32)> =
        workers.install(|| files.par_iter().map(|path| size(path)).collect::<Result<_, _>>())?;
    let first = sizes[0];
    match sizes.iter().position(|size| *size != first) {
        None => Ok(first),
        Some(other) => Err(DataError::Malformed {
            path: files[other].clone(),
            problem: format!(
                "is {} pixels high and {} wide, but `{}` is {} and {}",
                sizes[other].0,
                sizes[other].1,
                files[0].display(),
                first.0,
                first.1
            ),
            hint: Some("set `resize = [height, width]` in `[data]`"),
        }),
    }
}

fn open(path: &Path) -> Result<ImageReader<std::io::BufReader<std::fs::File>>, DataError> {
    // The content decides the format, not the name.
    ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })
}

fn size(path: &Path) -> Result<(u32, u32), DataError> {
    let (width, height) = open(path)?.into_dimensions().map_err(|error| broken(path, &error))?;
    Ok((height, width))
}

fn broken(path: &Path, error: &image::ImageError) -> DataError {
    DataError::malformed(path, &format!("is not a PNG or JPEG image that can be decoded: {error}"))
}

/// Images in files, decoded by worker threads.
struct Images {
    files: Vec<PathBuf>,
    height: u32,
    width: u32,
    color: Color,
    resize: bool,
    workers: Arc<ThreadPool>,
}

impl Images {
    /// Decodes an image into planes, one for each channel, of values from 0 to 255.
    fn decode(&self, path: &Path, planes: &mut [f32]) -> Result<(), DataError> {
        let mut decoded = open(path)?.decode().map_err(|error| broken(path, &error))?;
        if self.resize {
            // Triangle is bilinear, with a filter as wide as the reduction: torchvision's antialias.
            decoded = decoded.resize_exact(self.width, self.height, FilterType::Triangle);
        }
        if (decoded.height(), decoded.width()) != (self.height, self.width) {
            let problem = format!("is now {} pixels high and {} wide", decoded.height(), decoded.width());
            return Err(DataError::malformed(path, &problem));
        }
        let plane = self.height as usize * self.width as usize;
        match self.color {
            Color::Gray => {
                for (value, pixel) in planes.iter_mut().zip(DynamicImage::into_luma8(decoded).pixels()) {
                    *value = f32::from(pixel.0[0]);
                }
            }
            Color::Rgb => {
                for (position, pixel) in DynamicImage::into_rgb8(decoded).pixels().enumerate() {
                    for (channel, value) in pixel.0.into_iter().enumerate() {
                        planes[channel * plane + position] = f32::from(value);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Rows for Images {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn read(&self, indices: &[u32], values: &mut [f32]) -> Result<(), DataError> {
        let row_length = (values.len() / indices.len().max(1)).max(1);
        self.workers.install(|| {
            values.par_chunks_exact_mut(row_length).zip(indices).try_for_each(|(planes, index)| {
                match self.files.get(*index as usize) {
                    Some(path) => self.decode(path, planes),
                    None => Err(DataError::out_of_range(&[*index], self.files.len())),
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, RgbImage};

    use super::*;

    /// Two classes: `cat` has a red image and `dog` a gray one, 2 high and 3 wide.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for class in ["dog", "cat"] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
        }
        std::fs::write(folder.path().join("README"), "not an image").unwrap();
        std::fs::write(folder.path().join("cat/.hidden.png"), "not an image").unwrap();
        let mut red = RgbImage::new(3, 2);
        red.pixels_mut().for_each(|pixel| pixel.0 = [255, 0, 10]);
        red.put_pixel(2, 0, image::Rgb([1, 2, 3]));
        red.save(folder.path().join("cat/1.png")).unwrap();
        GrayImage::from_pixel(3, 2, image::Luma([7])).save(folder.path().join("dog/1.PNG")).unwrap();
        folder
    }

    fn options(rest: &str) -> ImagesOptions {
        toml::from_str(&format!("path = \".\"\n{rest}")).unwrap()
    }

    fn message(folder: &tempfile::TempDir, rest: &str) -> String {
        let error = read(&options(rest), Source::Folder(folder.path())).err().unwrap();
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    }

    fn pixels(pool: &Pool, index: u32) -> Vec<f32> {
        let mut values = vec![0.0; pool.sample_shape.iter().product::<i64>() as usize];
        pool.rows.read(&[index], &mut values).unwrap();
        values
    }

    #[test]
    fn folders_are_classes_and_channels_come_first() {
        let folder = folder();
        let pools = read(&options(""), Source::Folder(folder.path())).unwrap();
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        assert_eq!(pools.target, Target::Classes { count: 2, names, shape: Vec::new() });
        assert_eq!((&pools.main.sample_shape, &pools.main.targets), (&vec![3, 2, 3], &Targets::classes(vec![0, 1])));
        let red = pixels(&pools.main, 0);
        assert_eq!(red[..6], [255.0, 255.0, 1.0, 255.0, 255.0, 255.0]);
        assert_eq!(red[12..], [10.0, 10.0, 3.0, 10.0, 10.0, 10.0]);
        let gray = read(&options("color = \"gray\""), Source::Folder(folder.path())).unwrap();
        assert_eq!((gray.main.sample_shape.clone(), pixels(&gray.main, 1)), (vec![1, 2, 3], vec![7.0; 6]));
    }

    #[test]
    fn images_of_other_sizes_are_refused_or_resized() {
        let folder = folder();
        GrayImage::from_pixel(6, 4, image::Luma([7])).save(folder.path().join("dog/2.jpg")).unwrap();
        let error = read(&options(""), Source::Folder(folder.path())).err().unwrap();
        assert!(error.hint().is_some_and(|hint| hint.contains("resize")));
        assert_eq!(
            message(&folder, ""),
            "`DIR/./dog/2.jpg` is 4 pixels high and 6 wide, but `DIR/./cat/1.png` is 2 and 3"
        );
        let pools = read(&options("resize = [4, 4]\ncolor = \"gray\""), Source::Folder(folder.path())).unwrap();
        assert_eq!(pools.main.sample_shape, [1, 4, 4]);
        assert!(pixels(&pools.main, 2).iter().all(|value| (value - 7.0).abs() <= 1.0));
        assert!(message(&folder, "resize = [0, 4]").contains("data.resize"));
    }

    #[test]
    fn what_is_no_image_is_named() {
        let folder = folder();
        let path = folder.path().join("dog/0.png");
        std::fs::write(&path, "no picture").unwrap();
        assert!(
            message(&folder, "").starts_with("`DIR/./dog/0.png` is not a PNG or JPEG image"),
            "{}",
            message(&folder, "")
        );
        // The header is complete, the rest is not.
        let whole = std::fs::read(folder.path().join("dog/1.PNG")).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        let pools = read(&options(""), Source::Folder(folder.path())).unwrap();
        let error = pools.main.rows.read(&[0, 1], &mut [0.0; 36]).unwrap_err().to_string();
        assert!(error.contains("dog/0.png` is not a PNG or JPEG image that can be decoded"), "{error}");
    }

    #[test]
    fn folders_without_images_and_classes_without_counterpart_are_refused() {
        let folder = folder();
        let splits = "[splits.val]\npath = \"other\"";
        assert!(message(&folder, splits).starts_with("failed to read `DIR/other`"));
        let other = folder.path().join("other");
        std::fs::create_dir_all(other.join("bird")).unwrap();
        assert_eq!(message(&folder, splits), "`DIR/other` has the class `bird`, which is not in the training data");
        assert_eq!(message(&folder, ""), "`DIR/./other` has no `.png`, `.jpg` or `.jpeg` file");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(message(&empty, ""), "`DIR/.` has no folders: each class needs one");
    }

    #[test]
    fn the_content_says_what_it_is() {
        let folder = folder();
        let image = GrayImage::from_pixel(3, 2, image::Luma([9]));
        image.save_with_format(folder.path().join("cat/2.png"), ImageFormat::Jpeg).unwrap();
        let pools = read(&options("color = \"gray\""), Source::Folder(folder.path())).unwrap();
        assert!(pixels(&pools.main, 1).iter().all(|value| (value - 9.0).abs() <= 1.0));
    }
}
