//! What pages about a run have in common, the report and the live page: what they show, and the script that draws it.
//!
//! In Rust, [`Facts`], [`Curves`], [`Artifacts`] and [`times`] gather what there is to show and write it as JSON. In the
//! browser, `chart.js` draws curves as SVG and `page.js` fills the page's parts from that JSON; both know nothing of
//! where it comes from. [`Page`] puts them into one document that loads nothing.

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
