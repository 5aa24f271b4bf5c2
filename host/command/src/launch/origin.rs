//! Who started the processes.

use std::fmt;

/// Who started the processes of a run, and so which variables say which one this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This program: the variables of [`variables`](super::variables).
    Host,
    /// `torchrun` or what works like it.
    Torchrun,
    /// A step of SLURM.
    Slurm,
    /// Kubeflow's operator for PyTorch, a script, a person: the variables of `torch.distributed`'s `env://`.
    Variables,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Host => "`host run --processes`",
            Self::Torchrun => "`torchrun`",
            Self::Slurm => "`srun`",
            Self::Variables => "`RANK` and `WORLD_SIZE` of the environment",
        })
    }
}
