//! The metrics of a run over time, as `json-lines` wrote them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// The file in the run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// What is no metric in a line.
const OTHERS: [&str; 3] = ["kind", "epoch", "step"];

/// The values of a metric: step, epoch and value, in their order.
pub type Series = Vec<(u64, u64, f64)>;

/// Every finite number of a run by its name; empty if it wrote none. A line that is cut is left out.
pub fn read(folder: &Path) -> BTreeMap<String, Series> {
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    let Ok(file) = std::fs::File::open(folder.join(METRICS_FILE)) else { return series };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let Ok(Value::Object(line)) = serde_json::from_str(&line) else { continue };
        let number = |key: &str| line.get(key).and_then(Value::as_u64).unwrap_or_default();
        let (step, epoch) = (number("step"), number("epoch"));
        for (name, value) in line.iter().filter(|(name, _)| !OTHERS.contains(&name.as_str())) {
            if let Some(value) = value.as_f64() {
                series.entry(name.clone()).or_default().push((step, epoch, value));
            }
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_the_rest_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let lines = "{\"kind\":\"epoch\",\"epoch\":1,\"step\":5,\"val_loss\":0.5,\"matrix\":[[1]]}\n\
                     {\"kind\":\"epoch\",\"epoch\":2,\"step\":10,\"val_loss\":\"NaN\",\"a\":1}\n{\"kind\":\"ep";
        std::fs::write(folder.path().join(METRICS_FILE), lines).unwrap();
        let expected =
            BTreeMap::from([("a".to_owned(), vec![(10, 2, 1.0)]), ("val_loss".to_owned(), vec![(5, 1, 0.5)])]);
        assert_eq!(read(folder.path()), expected);
        assert!(read(Path::new("nowhere")).is_empty());
    }
}
