//! The common parts of the report and the live page: the data that they show, and the script that draws it.
//!
//! In Rust, [`Facts`], [`Curves`], [`Artifacts`] and [`times`] collect the data and write it as JSON. In the browser,
//! `chart.js` draws curves as SVG and `page.js` fills the page's parts from that JSON; both work with any source of it.
//! [`Page`] puts them into one document that loads nothing.

mod artifacts;
mod curves;
mod facts;
mod page;
mod progress;
mod times;

pub use artifacts::{Artifact, Artifacts};
pub use curves::{Curve, Curves, Drawn, MOST_CURVES, Number, STEP_LOSS};
pub use facts::{Facts, Layer, Model};
pub use page::{Page, json_for_script};
pub use progress::Progress;
pub use times::{Hook, PluginTime, times};
