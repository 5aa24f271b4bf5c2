//! A text as a sequence of tokens: each sample is a window of it, and its targets are the tokens that follow.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tch::Tensor;

use super::file;
use crate::data::options::{TextOptions, Tokens};
use crate::data::other::Known;
use crate::data::{
    Batch, Data, DataError, Dataset, INPUTS, Normalization, OTHER, SampleType, Samples, Source, TRAIN, Target,
};
use crate::torch::TorchError;

/// Reads the text and splits it.
pub(in crate::data) fn load(options: &TextOptions, source: Source<'_>) -> Result<Data, DataError> {
    let (path, content) = file::read(&options.path, source)?;
    let (tokens, names) = match options.tokens {
        Tokens::Bytes => (content.iter().copied().map(u32::from).collect(), Vec::new()),
        Tokens::Characters => characters(&path, &content)?,
    };
    if tokens.is_empty() {
        return Err(DataError::Empty { path });
    }
    let count = if names.is_empty() { 256 } else { names.len() };
    let context = options.context as usize;
    let stride = options.stride.unwrap_or(options.context).max(1) as usize;
    let mut splits: BTreeMap<String, Arc<dyn Dataset>> = BTreeMap::new();
    let tokens: Arc<[u32]> = tokens.into();
    for (name, range) in parts(options, tokens.len())? {
        let available = range.len();
        // The last token of a window has a target too.
        if available <= context {
            return Err(DataError::ShortText { split: name, available, context });
        }
        let windows = (available - context - 1) / stride + 1;
        let sample_shape = vec![i64::from(options.context)];
        let dataset = TextDataset { tokens: Arc::clone(&tokens), first: range.start, windows, stride, sample_shape };
        splits.insert(name, Arc::new(dataset));
    }
    let shape = vec![i64::from(options.context)];
    let samples = match options.tokens {
        Tokens::Bytes => Samples::Bytes,
        Tokens::Characters => Samples::Characters { tokens: names.clone() },
    };
    Ok(Data {
        input_name: INPUTS.to_owned(),
        others: Vec::new(),
        splits,
        samples,
        target: Target::Classes { count, names, shape: shape.clone() },
        positive: 1,
        sample_shape: shape,
        sample_type: SampleType::I64,
        normalization: Normalization::none(),
        augmentation: None,
        notes: Vec::new(),
    })
}

/// Reads another text, with the tokens that are known, as windows of all of it.
pub(in crate::data) fn load_like(options: &TextOptions, known: Known<'_>) -> Result<Arc<dyn Dataset>, DataError> {
    let (path, content) = file::read(known.path, Source::Folder(Path::new("")))?;
    let tokens = known.description.samples.encode(&content).map_err(|problem| DataError::malformed(&path, &problem))?;
    let context = options.context as usize;
    if tokens.len() <= context {
        return Err(DataError::ShortText { split: OTHER.to_owned(), available: tokens.len(), context });
    }
    let stride = options.stride.unwrap_or(options.context).max(1) as usize;
    let windows = (tokens.len() - context - 1) / stride + 1;
    let sample_shape = vec![i64::from(options.context)];
    Ok(Arc::new(TextDataset { tokens: tokens.into(), first: 0, windows, stride, sample_shape }))
}

/// The tokens of a text and what they stand for.
fn characters(path: &Path, content: &[u8]) -> Result<(Vec<u32>, Vec<String>), DataError> {
    let text = std::str::from_utf8(content)
        .map_err(|error| DataError::NotUtf8 { path: path.to_owned(), offset: error.valid_up_to() })?;
    let mut tokens: BTreeMap<char, u32> = text.chars().map(|character| (character, 0)).collect();
    for (token, number) in tokens.values_mut().zip(0..) {
        *token = number;
    }
    let names = tokens.keys().map(char::to_string).collect();
    Ok((text.chars().map(|character| tokens[&character]).collect(), names))
}

/// The part of the text for each split.
fn parts(options: &TextOptions, length: usize) -> Result<Vec<(String, Range<usize>)>, DataError> {
    let mut end = length;
    let mut parts = Vec::new();
    for (name, split) in options.splits.iter().rev() {
        let fraction = split.fraction;
        let share = (fraction * length as f64).round();
        if name == TRAIN || !(fraction > 0.0 && fraction < 1.0) || share as usize >= end {
            return Err(DataError::Option {
                option: format!("data.splits.{name}.fraction"),
                value: fraction.to_string(),
                expected: "above 0, with a sum below 1; the rest is `train`",
            });
        }
        let start = end - share as usize;
        parts.push((name.clone(), start..end));
        end = start;
    }
    parts.push((TRAIN.to_owned(), 0..end));
    Ok(parts)
}

/// Windows of a text.
#[derive(Debug)]
struct TextDataset {
    /// The whole text, shared by its splits.
    tokens: Arc<[u32]>,
    /// The first token of the split.
    first: usize,
    windows: usize,
    stride: usize,
    /// `[context]`.
    sample_shape: Vec<i64>,
}

impl Dataset for TextDataset {
    fn len(&self) -> usize {
        self.windows
    }

    fn sample_shape(&self) -> &[i64] {
        &self.sample_shape
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let context: usize = self.sample_shape.iter().map(|length| *length as usize).product();
        let (mut inputs, mut targets) =
            (Vec::with_capacity(indices.len() * context), Vec::with_capacity(indices.len() * context));
        for index in indices {
            let start = self.first + *index as usize * self.stride;
            let window = match self.tokens.get(start..=start + context) {
                Some(window) if (*index as usize) < self.windows => window,
                _ => return Err(DataError::out_of_range(indices, self.windows)),
            };
            inputs.extend(window[..context].iter().copied().map(i64::from));
            targets.extend(window[1..].iter().copied().map(i64::from));
        }
        let shape = [indices.len() as i64, context as i64];
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_reshape(shape).map_err(TorchError::from);
        Ok(Batch { inputs: tensor(&inputs)?, others: Vec::new(), targets: tensor(&targets)?, size: indices.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(rest: &str) -> TextOptions {
        toml::from_str(&format!("path = \"a.txt\"\n{rest}")).unwrap()
    }

    fn loaded(rest: &str, text: &[u8]) -> Result<Data, DataError> {
        load(&options(rest), Source::Bytes(text))
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn a_sample_is_a_window_and_its_targets_the_tokens_behind_each() {
        let data = loaded("context = 3", "abcdabcdé".as_bytes()).unwrap();
        let names = ["a", "b", "c", "d", "é"].map(str::to_owned).to_vec();
        assert_eq!(data.target, Target::Classes { count: 5, names, shape: vec![3] });
        assert_eq!((&data.sample_shape[..], data.sample_type), (&[3][..], SampleType::I64));
        let train = &data.splits[TRAIN];
        assert_eq!(train.len(), 2);
        let batch = train.gather(&[1, 0]).unwrap();
        assert_eq!(rows(&batch.inputs), [[3, 0, 1], [0, 1, 2]]);
        assert_eq!(rows(&batch.targets), [[0, 1, 2], [1, 2, 3]]);
        assert!(matches!(train.gather(&[2]), Err(DataError::OutOfRange { index: 2, length: 2 })));
        crate::data::tests::check_empty_batches(&data);
    }

    #[test]
    fn splits_are_cut_from_the_end_and_share_no_token() {
        let text: Vec<u8> = (0..100).collect();
        let rest = "tokens = \"bytes\"\ncontext = 4\nstride = 1\n[splits]\ntest = { fraction = 0.1 }\nval = { fraction = 0.2 }";
        let data = loaded(rest, &text).unwrap();
        let ends = |name: &str| {
            let split = &data.splits[name];
            let all: Vec<u32> = (0..split.len() as u32).collect();
            let batch = split.gather(&all).unwrap();
            (batch.inputs.min().int64_value(&[]), batch.targets.max().int64_value(&[]))
        };
        assert_eq!([ends(TRAIN), ends("test"), ends("val")], [(0, 69), (70, 79), (80, 99)]);
    }

    #[test]
    fn texts_and_options_that_give_no_samples_are_errors() {
        assert!(matches!(loaded("context = 2", b""), Err(DataError::Empty { .. })));
        assert!(matches!(loaded("context = 2", b"ab"), Err(DataError::ShortText { .. })));
        assert!(matches!(loaded("context = 2", b"ab\xff"), Err(DataError::NotUtf8 { offset: 2, .. })));
        for fraction in ["0", "1", "nan", "-1"] {
            let rest = format!("context = 2\nsplits = {{ val = {{ fraction = {fraction} }} }}");
            assert!(matches!(loaded(&rest, b"abcdefgh"), Err(DataError::Option { .. })), "{fraction}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_windows_or_an_error(text: Vec<u8>, context in 1u32..20, stride in 1u32..20, bytes: bool) {
            let tokens = if bytes { "bytes" } else { "characters" };
            let rest = format!("tokens = \"{tokens}\"\ncontext = {context}\nstride = {stride}");
            if let Ok(data) = loaded(&rest, &text) {
                let train = &data.splits[TRAIN];
                let last = train.len() as u32 - 1;
                let batch = train.gather(&[0, last]).unwrap();
                prop_assert_eq!(batch.inputs.size(), [2, i64::from(context)]);
                prop_assert!(train.gather(&[last + 1]).is_err());
            }
        }
    }
}
