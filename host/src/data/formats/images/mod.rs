//! A folder of images, one folder for each class.

mod decode;
mod find;
mod jpeg;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::decode::{Header, Planes};
use self::find::Found;
use super::{Pool, Pools};
use crate::data::classes::ClassTable;
use crate::data::normalize::ByteTables;
use crate::data::options::{ClassOptions, Color, ImagesOptions, Orientation};
use crate::data::other::{Known, OtherPool};
use crate::data::rows::Rows;
use crate::data::split::Place;
use crate::data::target::NO_CLASS;
use crate::data::typed::Typed;
use crate::data::{
    DataError, INPUTS, Normalization, Samples, Source, Sources, Target, TargetDescription, Targets, Wanted,
};
use crate::report::did_you_mean;

/// Finds the images and reads their headers; they are decoded when they are needed.
pub(in crate::data) fn read(options: &ImagesOptions, source: Source<'_>) -> Result<Pools, DataError> {
    let Source::Folder(folder) = source else {
        let problem = "is a folder, but data in memory must be a file";
        return Err(DataError::malformed(&options.path, problem));
    };
    let workers = workers()?;
    let main_path = folder.join(&options.path);
    let names = match &options.classes {
        Some(names) => ClassTable::new(&ClassOptions::Names(names.clone()))?.names,
        None => find::classes(&main_path)?,
    };
    let mut reader = Reader { names: &names, options, workers: Arc::new(workers), notes: Vec::new() };
    let mut given = BTreeMap::new();
    let mut held_out = BTreeMap::new();
    for (name, split) in &options.splits {
        match Place::of(name, split.fraction, split.stratified, split.path.as_deref())? {
            Place::Given(path) => {
                drop(given.insert(name.clone(), (reader.pool(folder.join(path))?, !split.stratified)))
            }
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let main = reader.pool(main_path)?;
    let notes = reader.notes;
    let target = Target::Classes { count: names.len(), names, shape: Vec::new() };
    let ImagesOptions { color, orientation, resize, .. } = *options;
    Ok(Pools {
        input_name: INPUTS.to_owned(),
        main,
        given,
        held_out,
        target,
        samples: Samples::Images { color, orientation, resize },
        classes_given: options.classes.is_some(),
        gaps: None,
        notes,
    })
}

/// Finds other images: in folders of the classes or, where targets may be missing, anywhere in a folder, or a single one.
pub(in crate::data) fn read_like(options: &ImagesOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    let names = match &known.description.target {
        TargetDescription::Classes { names, .. } => names.clone(),
        TargetDescription::Values { .. } => Vec::new(),
    };
    // A class may have no images here.
    let options = ImagesOptions { classes: Some(names.clone()), ..options.clone() };
    let workers = workers()?;
    let mut reader = Reader { names: &names, options: &options, workers: Arc::new(workers), notes: Vec::new() };
    let path = known.path;
    let folders = find::folders(path).unwrap_or_default();
    let has_targets = folders.iter().any(|folder| names.contains(folder));
    if !has_targets && known.wanted == Wanted::Required {
        // It names a folder that is no class.
        reader.pool(path.to_owned())?;
        return Err(known.no_targets("has no folders that are called as the classes"));
    }
    let (pool, files) = if has_targets {
        reader.pool_and_files(path.to_owned())?
    } else {
        let mut found = Found::default();
        match path.is_dir() {
            true => found.add_class(path)?,
            false => found.files.push(path.to_owned()),
        }
        reader.notes.extend(found.note(path));
        let targets = vec![NO_CLASS; found.files.len()];
        reader.pool_of(path.to_owned(), found.files, targets)?
    };
    Ok(OtherPool { pool, has_targets, sources: Sources::Files(files), notes: reader.notes })
}

/// As many threads as cores decode; the loop runs on other threads.
fn workers() -> Result<ThreadPool, DataError> {
    ThreadPoolBuilder::new()
        .thread_name(|index| format!("decoder-{index}"))
        .build()
        .map_err(|error| DataError::WorkerNotStarted { source: std::io::Error::other(error) })
}

/// Makes pools of folders.
struct Reader<'a> {
    /// The classes, in their order.
    names: &'a [String],
    options: &'a ImagesOptions,
    workers: Arc<ThreadPool>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn pool(&mut self, folder: PathBuf) -> Result<Pool, DataError> {
        self.pool_and_files(folder).map(|(pool, _)| pool)
    }

    fn pool_and_files(&mut self, folder: PathBuf) -> Result<(Pool, Arc<[PathBuf]>), DataError> {
        if let Some(unknown) = find::classes(&folder)?.iter().find(|name| !self.names.contains(name)) {
            let among = match self.options.classes {
                Some(_) => "in `classes`",
                None => "in the training data",
            };
            let near = did_you_mean(unknown, self.names.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; {near}"));
            let problem = format!("has the class `{unknown}`, which is not {among}{near}");
            return Err(DataError::malformed(&folder, &problem));
        }
        let mut found = Found::default();
        let mut targets = Vec::new();
        for (class, name) in (0..).zip(self.names) {
            let class_folder = folder.join(name);
            if !class_folder.is_dir() {
                continue;
            }
            found.add_class(&class_folder)?;
            // A class that `classes` names may be empty.
            if found.files.len() == targets.len() && self.options.classes.is_none() {
                return Err(DataError::Malformed {
                    path: class_folder,
                    problem: format!(
                        "is the folder of a class, but has no file with the extension of an image: {}",
                        find::EXTENSIONS.map(|extension| format!("`.{extension}`")).join(", ")
                    ),
                    hint: Some("remove the folder, or name all classes in `classes`: those may have no images"),
                });
            }
            targets.resize(found.files.len(), class);
        }
        found.count_beside(&folder)?;
        self.notes.extend(found.note(&folder));
        self.pool_of(folder, found.files, targets)
    }

    /// The images of these files, with as many targets.
    fn pool_of(
        &mut self,
        folder: PathBuf,
        files: Vec<PathBuf>,
        targets: Vec<i64>,
    ) -> Result<(Pool, Arc<[PathBuf]>), DataError> {
        if files.is_empty() {
            return Err(DataError::Empty { path: folder });
        }
        if u32::try_from(files.len()).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        let files: Arc<[PathBuf]> = files.into();
        let images = self.images(&folder, Arc::clone(&files))?;
        let channels = match images.color {
            Color::Rgb => 3,
            Color::Gray => 1,
        };
        let sample_shape = vec![channels, i64::from(images.height), i64::from(images.width)];
        let (rows, targets, typed) = (Arc::new(images), Targets::classes(targets), Typed::default());
        let pool = Pool { path: folder, rows, sample_shape, targets, typed };
        Ok((pool, files))
    }

    /// Images of one size, of which the headers are read.
    fn images(&mut self, folder: &Path, files: Arc<[PathBuf]>) -> Result<Images, DataError> {
        let ImagesOptions { color, resize, orientation, .. } = *self.options;
        let headers: Vec<Header> = self
            .workers
            .install(|| files.par_iter().map(|path| decode::header(path, orientation)).collect::<Result<_, _>>())?;
        let turned = headers.iter().filter(|header| header.is_turned).count();
        if turned > 0 {
            let what = match orientation {
                Orientation::Apply => "as it says; `orientation = \"ignore\"` leaves the pixels as they are stored",
                Orientation::Ignore => "but `orientation = \"ignore\"` leaves the pixels as they are stored",
            };
            self.notes.push(format!(
                "`{}`: {turned} of {} images have an EXIF orientation and are turned {what}",
                folder.display(),
                files.len()
            ));
        }
        let (height, width) = match resize {
            Some([0, _] | [_, 0]) => {
                return Err(DataError::Option {
                    option: "data.resize".to_owned(),
                    value: format!("{:?}", resize.unwrap_or_default()),
                    expected: "height and width of at least 1",
                });
            }
            Some([height, width]) => (height, width),
            None => common_size(&files, &headers)?,
        };
        Ok(Images {
            is_deep: headers.iter().any(|header| header.is_deep),
            files,
            height,
            width,
            color,
            orientation,
            resize: resize.is_some(),
            workers: Arc::clone(&self.workers),
        })
    }
}

/// The common size (height and width) of all images.
fn common_size(files: &[PathBuf], headers: &[Header]) -> Result<(u32, u32), DataError> {
    let first = headers[0].size;
    match headers.iter().position(|header| header.size != first) {
        None => Ok(first),
        Some(other) => Err(DataError::Malformed {
            path: files[other].clone(),
            problem: format!(
                "is {} pixels high and {} wide, but `{}` is {} and {}",
                headers[other].size.0,
                headers[other].size.1,
                files[0].display(),
                first.0,
                first.1
            ),
            hint: Some("set `resize = [height, width]` in `[data]`"),
        }),
    }
}

/// Images in files, decoded by worker threads.
struct Images {
    files: Arc<[PathBuf]>,
    height: u32,
    width: u32,
    color: Color,
    orientation: Orientation,
    resize: bool,
    /// Whether one has 16 bits for a channel.
    is_deep: bool,
    workers: Arc<ThreadPool>,
}

impl Images {
    /// Decodes the image at `index`.
    fn planes(&self, index: u32) -> Result<Planes, DataError> {
        let path = self.files.get(index as usize);
        let path = path.ok_or_else(|| DataError::out_of_range(&[index], self.files.len()))?;
        let mut image = decode::decode(path, self.orientation)?;
        if self.resize {
            image = decode::resize(&image, self.height, self.width);
        }
        if (image.height(), image.width()) != (self.height, self.width) {
            let problem = format!("is now {} pixels high and {} wide", image.height(), image.width());
            return Err(DataError::malformed(path, &problem));
        }
        decode::planes(path, &image, self.color)
    }

    /// Decodes images on all threads and gives each, with its place among `values`, to `write`.
    fn each<T: Send>(
        &self,
        indices: &[u32],
        values: &mut [T],
        write: impl Fn(u32, Planes, &mut [T]) -> Result<(), DataError> + Sync,
    ) -> Result<(), DataError> {
        let row_length = (values.len() / indices.len().max(1)).max(1);
        self.workers.install(|| {
            let rows = values.par_chunks_exact_mut(row_length).zip(indices);
            rows.try_for_each(|(row, index)| write(*index, self.planes(*index)?, row))
        })
    }
}

impl Rows for Images {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn fits_f32(&self) -> bool {
        !self.is_deep
    }

    fn are_files(&self) -> bool {
        true
    }

    fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError> {
        self.each(indices, values, |_, planes, row| {
            match planes {
                Planes::Bytes(bytes) => row.iter_mut().zip(bytes).for_each(|(value, byte)| *value = f64::from(byte)),
                Planes::Numbers(numbers) => row.copy_from_slice(&numbers),
            }
            Ok(())
        })
    }

    fn read(&self, indices: &[u32], normalization: &Normalization, values: &mut [f32]) -> Result<(), DataError> {
        let tables = ByteTables::new(normalization, values.len(), f64::from);
        self.each(indices, values, |index, planes, row| {
            let written = match (planes, &tables) {
                (Planes::Bytes(bytes), Some(tables)) => {
                    tables.write(&bytes, row);
                    Ok(())
                }
                (Planes::Bytes(bytes), None) => normalization.write(&bytes, f64::from, row),
                (Planes::Numbers(numbers), _) => normalization.write(&numbers, |number| number, row),
            };
            written.map_err(|position| DataError::Overflow { sample: index as usize, position })
        })
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{DynamicImage, GrayImage, ImageBuffer, ImageEncoder as _, ImageFormat, Luma, RgbImage};

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
        pool.rows.read(&[index], &Normalization::none(), &mut values).unwrap();
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
            message(&folder, "").starts_with("`DIR/./dog/0.png` is not an image that can be decoded"),
            "{}",
            message(&folder, "")
        );
        // The header is complete, the rest is not.
        let whole = std::fs::read(folder.path().join("dog/1.PNG")).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        let pools = read(&options(""), Source::Folder(folder.path())).unwrap();
        let error = pools.main.rows.read(&[0, 1], &Normalization::none(), &mut [0.0; 36]).unwrap_err().to_string();
        assert!(error.contains("dog/0.png` is not an image that can be decoded"), "{error}");
    }

    #[test]
    fn folders_without_images_and_classes_without_counterpart_are_refused() {
        let folder = folder();
        let splits = "[splits.val]\npath = \"other\"";
        assert!(message(&folder, splits).starts_with("failed to read `DIR/other`"));
        let other = folder.path().join("other");
        std::fs::create_dir_all(other.join("bird")).unwrap();
        assert_eq!(message(&folder, splits), "`DIR/other` has the class `bird`, which is not in the training data");
        let empty_class = message(&folder, "");
        assert!(empty_class.starts_with("`DIR/./other` is the folder of a class, but has no file"), "{empty_class}");
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

    /// One class with this file.
    fn one(name: &str, content: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a").join(name), content).unwrap();
        folder
    }

    fn gradient() -> DynamicImage {
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8])).into()
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        gradient().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// The pixels of the first image, or the message.
    fn first(folder: &tempfile::TempDir, rest: &str) -> Result<Vec<f32>, String> {
        let pools = read(&options(rest), Source::Folder(folder.path())).map_err(|error| error.to_string())?;
        let mut values = vec![0.0; pools.main.sample_shape.iter().product::<i64>() as usize];
        let none = Normalization::none();
        pools.main.rows.read(&[0], &none, &mut values).map_err(|error| error.to_string())?;
        Ok(values)
    }

    /// The progressive file is written by Pillow.
    #[test]
    fn a_truncated_jpeg_is_refused_wherever_it_ends() {
        let progressive = include_bytes!("progressive.jpg").as_slice();
        for whole in [progressive, &encoded(ImageFormat::Jpeg)] {
            assert!(first(&one("a.jpg", whole), "").is_ok());
            for length in (3..whole.len()).step_by(7).chain([whole.len() - 2, whole.len() - 1]) {
                let folder = one("a.jpg", &whole[..length]);
                let message = first(&folder, "").unwrap_err();
                assert!(message.contains("is truncated"), "{length} of {}: {message}", whole.len());
            }
        }
    }

    #[test]
    fn a_large_jpeg_is_looked_at_by_its_header_and_its_end() {
        let noise = RgbImage::from_fn(400, 300, |x, y| {
            let mixed = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
            image::Rgb([(mixed >> 8) as u8, (mixed >> 16) as u8, (mixed >> 24) as u8])
        });
        let mut whole = Vec::new();
        JpegEncoder::new_with_quality(&mut whole, 98).encode_image(&noise).unwrap();
        assert!(whole.len() > 100_000, "{}", whole.len());
        let folder = one("a.jpg", &whole);
        assert_eq!(read(&options(""), Source::Folder(folder.path())).unwrap().main.sample_shape, [3, 300, 400]);
        // What some programs write after the end is longer than the part that is looked at.
        let followed = [whole.as_slice(), &[7; 20_000]].concat();
        assert!(first(&one("a.jpg", &followed), "").is_ok());
        let cut = one("a.jpg", &whole[..whole.len() - 2]);
        assert!(message(&cut, "").contains("a.jpg` is truncated"), "before it is decoded: {}", message(&cut, ""));
    }

    #[test]
    fn every_format_is_read_and_none_is_read_in_part() {
        for (name, format, exact) in [
            ("a.png", ImageFormat::Png, true),
            ("a.BMP", ImageFormat::Bmp, true),
            ("a.tif", ImageFormat::Tiff, true),
            ("a.tiff", ImageFormat::Tiff, true),
            ("a.webp", ImageFormat::WebP, true),
            ("a.gif", ImageFormat::Gif, false),
        ] {
            let whole = encoded(format);
            let pixels = first(&one(name, &whole), "").unwrap();
            let expected = first(&one("a.png", &encoded(ImageFormat::Png)), "").unwrap();
            let distance: f32 = pixels.iter().zip(&expected).map(|(found, right)| (found - right).abs()).sum::<f32>();
            // A palette of 256 colors is near the colors.
            let limit = if exact { 0.0 } else { 15.0 };
            let mean = distance / pixels.len() as f32;
            assert!(mean <= limit, "{name}: {mean}");
            let step = (whole.len() / 100).max(1);
            for length in (1..whole.len()).step_by(step).chain(whole.len() - 30..whole.len()) {
                if let Ok(part) = first(&one(name, &whole[..length]), "") {
                    assert_eq!(part, pixels, "{name}: the first {length} of {} bytes", whole.len());
                }
            }
        }
    }

    #[test]
    fn an_orientation_is_applied_or_ignored_and_told() {
        // An EXIF block of one entry: the orientation 6, to be turned clockwise.
        let exif = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".as_slice(), &[0; 4]].concat();
        let upright = GrayImage::from_vec(3, 2, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let mut png = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif.clone()).unwrap();
        encoder.write_image(&upright, 3, 2, image::ExtendedColorType::L8).unwrap();
        let folder = one("a.png", &png);
        let read = |rest| read(&options(rest), Source::Folder(folder.path())).unwrap();
        let applied = read("color = \"gray\"");
        assert_eq!(applied.main.sample_shape, [1, 3, 2]);
        assert_eq!(pixels(&applied.main, 0), [40.0, 10.0, 50.0, 20.0, 60.0, 30.0]);
        assert!(applied.notes[0].contains("1 of 1 images have an EXIF orientation"), "{:?}", applied.notes);
        let ignored = read("color = \"gray\"\norientation = \"ignore\"");
        assert_eq!(
            (ignored.main.sample_shape.as_slice(), pixels(&ignored.main, 0)[..2].to_vec()),
            ([1, 2, 3].as_slice(), vec![10.0, 20.0])
        );
        assert_eq!(ignored.notes.len(), 1);

        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 95);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&upright, 3, 2, image::ExtendedColorType::L8).unwrap();
        let folder = one("a.jpg", &jpeg);
        let pools = super::read(&options(""), Source::Folder(folder.path())).unwrap();
        assert_eq!((pools.main.sample_shape, pools.notes.len()), (vec![3, 3, 2], 1));
    }

    #[test]
    fn images_in_folders_within_are_read_and_what_is_left_out_is_counted() {
        let folder = folder();
        let image = std::fs::read(folder.path().join("cat/1.png")).unwrap();
        std::fs::create_dir_all(folder.path().join("cat/2024/may")).unwrap();
        std::fs::write(folder.path().join("cat/2024/may/x.png"), &image).unwrap();
        std::fs::write(folder.path().join("cat/2024/notes.TXT"), "").unwrap();
        std::fs::write(folder.path().join("beside.png"), &image).unwrap();
        let pools = read(&options(""), Source::Folder(folder.path())).unwrap();
        assert_eq!(pools.main.targets, Targets::classes(vec![0, 0, 1]));
        let note = pools.notes[0].replace(&folder.path().display().to_string(), "DIR");
        assert!(
            note.starts_with(
                "`DIR/.`: 4 files are left out: 1 `.txt`, 1 beside the folders of the classes, 1 hidden, 1 without an \
                 extension; images in the folder of a class are read, with the extensions `.png`, "
            ),
            "{note}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        let folder = folder();
        std::os::unix::fs::symlink(folder.path().join("dog"), folder.path().join("cat/more")).unwrap();
        let pools = read(&options(""), Source::Folder(folder.path())).unwrap();
        assert_eq!(pools.main.targets, Targets::classes(vec![0, 0, 1]));
        std::os::unix::fs::symlink(folder.path().join("cat"), folder.path().join("cat/again")).unwrap();
        assert_eq!(message(&folder, ""), "`DIR/./cat/again` is a link that leads back to a folder around it");
    }

    #[test]
    fn classes_can_be_named_in_an_order_and_some_may_be_empty() {
        let folder = folder();
        let named = "classes = [\"dog\", \"bird\", \"cat\"]";
        let pools = read(&options(named), Source::Folder(folder.path())).unwrap();
        assert_eq!(pools.main.targets, Targets::classes(vec![0, 2]));
        assert!(pools.classes_given);
        assert_eq!(
            message(&folder, "classes = [\"dog\", \"cats\"]"),
            "`DIR/.` has the class `cat`, which is not in `classes`; did you mean `cats`?"
        );
        assert!(message(&folder, "classes = [\"a\", \"a\"]").contains("names each class once"));
    }

    #[test]
    fn sixteen_bits_reach_the_model() {
        let folder = tempfile::tempdir().unwrap();
        for (class, value) in [("a", 1000u16), ("b", 1100)] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            let image = DynamicImage::ImageLuma16(ImageBuffer::from_pixel(4, 4, Luma([value])));
            image.save(folder.path().join(class).join("0.png")).unwrap();
        }
        let pools = read(&options("color = \"gray\""), Source::Folder(folder.path())).unwrap();
        assert!(!pools.main.rows.fits_f32());
        assert_eq!((pixels(&pools.main, 0)[0], pixels(&pools.main, 1)[0]), (1000.0 / 257.0, 1100.0 / 257.0));
        let mut stored = [0.0; 16];
        pools.main.rows.read_stored(&[1], &mut stored).unwrap();
        assert_eq!(stored, [1100.0 / 257.0; 16]);
        let resized = read(&options("resize = [2, 2]"), Source::Folder(folder.path())).unwrap();
        assert_eq!(pixels(&resized.main, 1), [1100.0 / 257.0; 12]);
    }

    #[test]
    fn a_bomb_is_refused_from_its_header() {
        // A file of 40 bytes: the header of a PNG of 20 000 by 20 000 pixels.
        let mut header = b"IHDR\0\0\x4e\x20\0\0\x4e\x20\x08\0\0\0\0".to_vec();
        let sum = crc(&header);
        header.extend(sum.to_be_bytes());
        let empty = [b"\0\0\0\0IDAT".as_slice(), &crc(b"IDAT").to_be_bytes()].concat();
        let bomb = [b"\x89PNG\r\n\x1a\n\0\0\0\x0d".as_slice(), &header, &empty].concat();
        let found = message(&one("a.png", &bomb), "resize = [2, 2]");
        assert!(
            found.contains("is 20000 pixels high and 20000 wide; an image has 178956970 pixels at most"),
            "{found}"
        );
    }

    /// The checksum of PNG (ISO 3309).
    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
