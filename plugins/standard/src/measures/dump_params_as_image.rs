//! `dump-params-as-image`: writes parameters as pictures each time it is triggered, as tensorpack's `DumpParamAsImage`.
//!
//! The names of the pictures of a parameter follow each other, and those of a trigger appear together.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use export::{Publication, remove_unfinished};
use monitor::encode_png;
use plugin_api::event::{At, Trigger};
use plugin_api::protocol::TensorSet;
use plugin_api::services::{did_you_mean, fits};
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, TensorView, plugin, tracing};

use super::tensor_file::file_name;
use super::tensor_picture::{Picture, Shades};
use crate::metric_patterns::refuse_empty;
use crate::weights::values::{f32_values, is_f32};

/// Options of `dump-params-as-image`.
#[plugin]
pub(crate) struct Options {
    /// The parameters; `*` stands for any characters.
    parameters: Vec<String>,
    /// The folder of the pictures, relative to the run folder or absolute. It is created if it is missing.
    #[schemars(extend("format" = "output-folder"))]
    folder: String,
    /// Brightness is a value times this number, from 0 to 255: 255 if the values are from 0 to 1. Without it, `min` and `max`
    /// say it.
    scale: Option<f64>,
    /// The value that is black; without it, the least one of each picture.
    min: Option<f64>,
    /// The value that is white; without it, the greatest one of each picture.
    max: Option<f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parameters: vec!["*".to_owned()],
            folder: "parameter-images".to_owned(),
            scale: None,
            min: None,
            max: None,
        }
    }
}

pub(crate) struct DumpParamsAsImage {
    options: Options,
    shades: Shades,
    /// The chosen parameters, with the beginning of the names of their files.
    chosen: BTreeMap<String, String>,
}

#[plugin]
impl Callback for DumpParamsAsImage {
    const KIND: &'static str = "dump-params-as-image";
    const SUMMARY: &'static str = "Writes parameters as pictures";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::parameters(EventKind::TRIGGER)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        refuse_empty("parameters", &options.parameters)?;
        if options.folder.is_empty() {
            return Err(Error::new("`folder` is empty: name a folder; `.` is the run folder itself"));
        }
        let shades = shades(&options)?;
        Ok(Self { options, shades, chosen: BTreeMap::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let folder = run.info()?.folder;
        remove_unfinished(&folder, &self.options.folder);
        // Obstacles are told before the training.
        let path = Path::new(&folder).join(&self.options.folder);
        fs::create_dir_all(&path)
            .map_err(|error| Error::new(format!("cannot create the folder `{}`: {error}", path.display())))?;
        let names: Vec<String> = run.list(TensorSet::Parameters)?.into_iter().map(|parameter| parameter.name).collect();
        for pattern in &self.options.parameters {
            let mut fitting = names.iter().filter(|name| fits(pattern, name)).peekable();
            if fitting.peek().is_none() {
                let near = did_you_mean(pattern, names.iter().map(String::as_str));
                let hint = near.unwrap_or_else(|| "`host model` shows their names".to_owned());
                let told = format!("`parameters` names `{pattern}`, but the model has no such parameter; {hint}");
                return Err(Error::new(told));
            }
            self.chosen.extend(fitting.map(|name| (name.clone(), file_name(name))));
        }
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let info = run.info()?;
        let folder = Path::new(&info.folder).join(&self.options.folder);
        let mut publication = Publication::begin(&folder, false)?;
        let mut without = Vec::new();
        for view in run.tensors(TensorSet::Parameters)? {
            let Some(parameter) = self.chosen.get(view.name()) else { continue };
            match self.picture(run, &view)? {
                Some(picture) => {
                    let name = format!("{parameter}-epoch-{:04}-step-{:08}.png", event.epoch, event.global_step);
                    let mut file = publication.create(&name, true)?;
                    file.write_all(&encode_png(picture.size, &picture.pixels)?)?;
                    file.finish(publication.syncs())?;
                }
                None => without.push(view.name().to_owned()),
            }
        }
        if !info.trial {
            publication.publish()?;
        }
        for parameter in without {
            // It is the same at each trigger: it is said once.
            self.chosen.remove(&parameter);
            tracing::warn!("`{parameter}` has no picture: it is too large, empty, or not of type f32");
        }
        Ok(())
    }
}

impl DumpParamsAsImage {
    fn picture(&self, run: &Run<'_>, view: &TensorView<'_>) -> Result<Option<Picture>> {
        let shape: Result<Vec<usize>, _> = view.shape().iter().map(|&length| usize::try_from(length)).collect();
        match shape {
            Ok(shape) if is_f32(view) => Ok(Picture::of(&shape, &f32_values(run, view)?, self.shades)),
            _ => Ok(None),
        }
    }
}

/// The values that are black and white.
fn shades(Options { scale, min, max, .. }: &Options) -> Result<Shades> {
    if let Some(scale) = scale {
        if min.is_some() || max.is_some() {
            return Err(Error::new("`scale` and `min` or `max` say the same: set only one of them"));
        }
        if !(*scale > 0.0 && scale.is_finite()) {
            return Err(Error::new(format!("`scale` is {scale}: set it to a number above 0")));
        }
        return Ok(Shades { black: Some(0.0), white: Some(f64::from(u8::MAX) / scale) });
    }
    if let (Some(min), Some(max)) = (min, max)
        && max.partial_cmp(min) != Some(std::cmp::Ordering::Greater)
    {
        return Err(Error::new(format!("`max` is {max}: set it above `min`, which is {min}")));
    }
    Ok(Shades { black: *min, white: *max })
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, Value, json};

    use super::*;

    fn host(options: Value) -> FakeHost {
        let mut host = FakeHost::new::<DumpParamsAsImage>(options).unwrap();
        let kernel = [0f32, 0.2, 0.4, 1.0];
        host.put_tensor(TensorSet::Parameters, Tensor::new("conv1.weight", &[2, 1, 1, 2], &kernel).unwrap());
        host.put_tensor(TensorSet::Parameters, Tensor::new("conv1.bias", &[1], &[0.5f32]).unwrap());
        host.set_position(1, 7);
        host
    }

    /// Width, height and pixels of a gray picture.
    fn read(path: &Path) -> (u32, u32, Vec<u8>) {
        let file = std::io::BufReader::new(fs::File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    const WEIGHT: &str = "conv1.weight-epoch-0001-step-00000007.png";
    const BIAS: &str = "conv1.bias-epoch-0001-step-00000007.png";

    #[test]
    fn each_parameter_is_a_picture() {
        let mut host = host(json!({}));
        host.setup().unwrap();
        host.trigger("epoch").unwrap();
        let folder = host.folder().join("parameter-images");
        // Two kernels side by side, with a line between them.
        assert_eq!(read(&folder.join(WEIGHT)), (5, 1, vec![0, 51, 0, 102, 255]));
        assert_eq!(read(&folder.join(BIAS)), (1, 1, vec![0]));
        // A resumed run comes to the same step again.
        host.put_tensor(TensorSet::Parameters, Tensor::new("conv1.weight", &[1, 2], &[1f32, 0.0]).unwrap());
        host.trigger("epoch").unwrap();
        assert_eq!(read(&folder.join(WEIGHT)), (2, 1, vec![255, 0]));
    }

    #[test]
    fn black_and_white_are_what_the_options_say() {
        for (options, expected) in [
            (json!({ "scale": 510.0 }), [0, 102, 0, 204, 255]),
            (json!({ "min": -1.0, "max": 1.0 }), [128, 153, 0, 179, 255]),
            (json!({ "max": 2.0 }), [0, 26, 0, 51, 128]),
        ] {
            let mut host = host(options);
            host.setup().unwrap();
            host.trigger("epoch").unwrap();
            assert_eq!(read(&host.folder().join("parameter-images").join(WEIGHT)).2, expected);
        }
    }

    #[test]
    fn only_the_named_parameters_are_written_and_another_name_is_refused() {
        let mut host = self::host(json!({ "parameters": ["*.bias"], "folder": "p" }));
        host.setup().unwrap();
        host.trigger("epoch").unwrap();
        let written: Vec<_> =
            fs::read_dir(host.folder().join("p")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(written, [BIAS]);
        let error = self::host(json!({ "parameters": ["conv1.wieght"] })).setup().unwrap_err();
        let told =
            "`parameters` names `conv1.wieght`, but the model has no such parameter; did you mean `conv1.weight`?";
        assert_eq!(error.message(), told);
    }

    #[test]
    fn what_has_no_picture_is_said_once() {
        let mut host = host(json!({ "parameters": ["count"] }));
        host.put_tensor(TensorSet::Parameters, Tensor::new("count", &[1], &[3i64]).unwrap());
        host.setup().unwrap();
        host.trigger("epoch").unwrap();
        host.trigger("epoch").unwrap();
        assert_eq!(host.logs().iter().filter(|line| line.contains("`count` has no picture")).count(), 1);
    }

    #[test]
    fn a_trial_writes_no_picture() {
        let mut host = host(json!({})).with_info(|info| info.trial = true);
        host.setup().unwrap();
        host.trigger("epoch").unwrap();
        assert_eq!(fs::read_dir(host.folder().join("parameter-images")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_options_are_refused() {
        let message = |options| FakeHost::new::<DumpParamsAsImage>(options).err().unwrap().message().to_owned();
        assert!(message(json!({ "parameters": [] })).starts_with("`parameters` is empty"));
        assert!(message(json!({ "folder": "" })).starts_with("`folder` is empty"));
        assert!(message(json!({ "scale": 255, "max": 1 })).starts_with("`scale` and `min` or `max` say the same"));
        assert_eq!(message(json!({ "scale": 0 })), "`scale` is 0: set it to a number above 0");
        assert_eq!(message(json!({ "min": 1, "max": 1 })), "`max` is 1: set it above `min`, which is 1");
    }
}
