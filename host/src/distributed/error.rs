//! Why processes cannot act as one run.

use std::time::Duration;

use crate::report::Report;
use crate::torch::TorchError;

/// Why processes cannot act as one run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributedError {
    /// The store of the ranks cannot be reached, or not be served.
    #[error("rank {rank} cannot reach the other ranks at `{address}`, where rank 0 or its launcher serves them")]
    Store {
        /// This rank.
        rank: usize,
        /// Where the store should be.
        address: String,
        /// Why.
        source: TorchError,
    },
    /// The store's port cannot be listened at.
    #[error("rank 0 cannot listen at the port {port}, where the ranks meet")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// Some ranks have not come.
    #[error("{} of {world_size} {} not started, or cannot reach `{address}`, after {timeout:?}", ranks(missing), if missing.len() == 1 { "has" } else { "have" })]
    Missing {
        /// Which.
        missing: Vec<usize>,
        /// How many there should be.
        world_size: usize,
        /// Where they meet.
        address: String,
        /// How long this rank has waited.
        timeout: Duration,
    },
    /// A rank is not of the same run.
    #[error("rank {rank} has {what} than rank 0{}", instead(own, of_zero))]
    Differs {
        /// Which.
        rank: usize,
        /// What differs, as in `another model`.
        what: &'static str,
        /// What it has.
        own: String,
        /// What rank zero has.
        of_zero: String,
    },
    /// The weights are no longer the same on all ranks.
    #[error("the weights of rank {rank} are not those of rank 0 any more, first in `{tensor}`, after epoch {epoch}")]
    Diverged {
        /// The first that has others.
        rank: usize,
        /// The first tensor.
        tensor: String,
        /// After which epoch.
        epoch: u64,
    },
    /// Another rank has failed and has said why.
    #[error("{}", failed(*rank, message))]
    Failed {
        /// Which.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// Another rank does not answer any more.
    #[error("rank {rank} ({who}) {how}")]
    Lost {
        /// Which.
        rank: usize,
        /// Its process and machine.
        who: String,
        /// What is known of it.
        how: String,
    },
    /// An operation failed, and no rank is known to be the reason.
    #[error("the {world_size} ranks cannot {action}")]
    Operation {
        /// How many there are.
        world_size: usize,
        /// What they were doing, as in `sum gradients`.
        action: &'static str,
        /// What went wrong.
        source: TorchError,
    },
    /// Batch norms that the host does not compute cannot count the samples of all ranks.
    #[error("`distributed.sync_batch_norm` is for models of layers on the CPU, and this one is another")]
    Statistics,
    /// What ranks have measured does not fit together.
    #[error("the ranks cannot merge what they have measured: {message}")]
    Merge {
        /// Why.
        message: String,
    },
    /// What another rank sent is not understood: it is of another version.
    #[error("what rank {rank} sent is not understood")]
    Message {
        /// Which.
        rank: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// Ranks by number: `rank 1`, `ranks 1, 2 and 5`.
fn ranks(numbers: &[usize]) -> String {
    const MOST: usize = 8;
    let (last, first) = match numbers.split_last() {
        Some((last, first)) => (last, first),
        None => return "no rank".to_owned(),
    };
    match first.len() {
        0 => format!("rank {last}"),
        count if count >= MOST => {
            let first: Vec<String> = numbers.iter().take(MOST).map(ToString::to_string).collect();
            format!("ranks {} and {} more", first.join(", "), numbers.len() - MOST)
        }
        _ => {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            format!("ranks {} and {last}", first.join(", "))
        }
    }
}

/// What two ranks have, where people can tell it apart: of long digests, that they differ says all.
fn instead(own: &str, of_zero: &str) -> String {
    const LONGEST: usize = 40;
    if own.len().max(of_zero.len()) > LONGEST { String::new() } else { format!(": {own} instead of {of_zero}") }
}

/// What a rank said when it failed. It may have lost another one, or differ from rank zero: then its sentence names that rank.
fn failed(rank: usize, message: &str) -> String {
    if message.starts_with("rank") { message.to_owned() } else { format!("rank {rank} failed: {message}") }
}

impl DistributedError {
    /// Whether another rank is the reason: this one has only lost it.
    pub fn is_of_another(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Lost { .. } | Self::Missing { .. })
    }
}

impl Report for DistributedError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store { .. } => {
                "the address must be that of rank 0's machine, reachable on this port from all others".to_owned()
            }
            Self::Port { .. } => "choose another port: `MASTER_PORT`, or `--master-port` of `torchrun`".to_owned(),
            Self::Missing { .. } => {
                "start every rank with the same address, port and number of ranks; `timeout` in `[distributed]` says how \
                 long they wait for each other"
                    .to_owned()
            }
            Self::Differs { .. } => {
                "all ranks must have the same program, run file, data and checkpoint".to_owned()
            }
            Self::Diverged { .. } => "a plugin that changes weights, gradients or rates must do the same on all ranks: \
                                      it needs `ranks = \"all\"`, and must not depend on the rank"
                .to_owned(),
            Self::Failed { rank, .. } | Self::Lost { rank, .. } => {
                format!(
                    "the log of rank {rank} tells more; `--resume auto` for all ranks goes on from the run's last checkpoint"
                )
            }
            Self::Statistics => "without it, each rank normalizes by the statistics of its own samples, as PyTorch's \
                                 `DistributedDataParallel` does"
                .to_owned(),
            Self::Operation { .. } | Self::Merge { .. } | Self::Message { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_passed_on_as_it_is() {
        let failed = |message: &str| DistributedError::Failed { rank: 2, message: message.to_owned() }.to_string();
        assert_eq!(failed("the disk is full"), "rank 2 failed: the disk is full");
        assert_eq!(failed("rank 1 was killed"), "rank 1 was killed");
    }

    #[test]
    fn ranks_are_named() {
        assert_eq!(ranks(&[3]), "rank 3");
        assert_eq!(ranks(&[1, 2, 5]), "ranks 1, 2 and 5");
        assert_eq!(ranks(&(0..20).collect::<Vec<_>>()), "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more");
        let missing = DistributedError::Missing {
            missing: vec![1],
            world_size: 2,
            address: "127.0.0.1:29500".to_owned(),
            timeout: Duration::from_secs(60),
        };
        let text = "rank 1 of 2 has not started, or cannot reach `127.0.0.1:29500`, after 60s";
        assert_eq!(missing.to_string(), text);
    }
}
