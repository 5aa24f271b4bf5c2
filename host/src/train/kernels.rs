//! Which kernels compute the products of a run: part of what makes it repeatable, and so kept in checkpoints.

use serde::{Deserialize, Serialize};

use super::checkpointing::Resume;
use crate::torch::products::{self, Products};

/// The kernels of a run, and the processor that they run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernels {
    /// Who computes products of f32 on the CPU.
    pub products: Products,
    /// The kind of processor: on another one, the same kernels round in another order.
    processor: String,
}

/// The kernels of a resumed run, and what is to be told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The kernels.
    pub kernels: Kernels,
    /// Why the run gives other bits than one that was not interrupted, if it does.
    pub warning: Option<String>,
}

impl Kernels {
    /// These products, on this machine.
    pub fn new(products: Products) -> Kernels {
        Kernels { products, processor: products::processor().to_owned() }
    }

    /// Those of a run that begins, or that goes on from a checkpoint.
    pub fn of_run(self, resume: Option<&Resume>) -> Resumed {
        match resume {
            Some(resume) => self.resumed(resume.kernels()),
            None => Resumed { kernels: self, warning: None },
        }
    }

    /// What a run uses that goes on from a checkpoint: the checkpoint's kernels, so that its bits are those of a run that was
    /// not interrupted; on a processor of another kind, where they cannot be, its own. A checkpoint of a host that did not
    /// record them was computed by libtorch.
    fn resumed(self, saved: Option<Result<Kernels, serde_json::Error>>) -> Resumed {
        match saved {
            Some(Err(error)) => {
                let warning = format!(
                    "the kernels of the checkpoint are not known here ({error}): sums are rounded in another order, so the last \
                     bits of results will differ from those of an uninterrupted run"
                );
                Resumed { kernels: self, warning: Some(warning) }
            }
            Some(Ok(saved)) if saved.processor != self.processor => {
                let warning = format!(
                    "the checkpoint was written on another kind of processor ({}; this one is {}): sums are rounded in another \
                     order, so the last bits of results will differ from those of an uninterrupted run",
                    saved.processor, self.processor
                );
                Resumed { kernels: self, warning: Some(warning) }
            }
            Some(Ok(saved)) => Resumed { kernels: saved, warning: None },
            None => Resumed { kernels: Kernels { products: Products::Libtorch, ..self }, warning: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_keeps_the_kernels_of_its_checkpoint_where_it_can() {
        let [gemm, libtorch] = [Products::Gemm, Products::Libtorch].map(Kernels::new);
        for (own, saved) in [(&gemm, &libtorch), (&libtorch, &gemm)] {
            let resumed = own.clone().resumed(Some(Ok(saved.clone())));
            assert_eq!(resumed, Resumed { kernels: saved.clone(), warning: None });
        }
        assert_eq!(gemm.clone().resumed(None), Resumed { kernels: libtorch.clone(), warning: None });
        let elsewhere = Kernels { processor: "GenuineIntel family 6 model 207".to_owned(), ..libtorch };
        let resumed = gemm.clone().resumed(Some(Ok(elsewhere)));
        assert_eq!(resumed.kernels, gemm);
        assert!(resumed.warning.unwrap().contains("(GenuineIntel family 6 model 207; this one is "));
        let unknown = serde_json::from_str::<Kernels>(r#"{ "products": "abacus", "processor": "" }"#);
        let resumed = gemm.clone().resumed(Some(unknown));
        assert_eq!(resumed.kernels, gemm);
        assert!(resumed.warning.unwrap().contains("`abacus`"));
    }
}
