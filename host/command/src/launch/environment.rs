//! Which process of a run this is, as the environment says.

use std::net::IpAddr;

use super::error::LaunchError;
use super::origin::Origin;
use super::{slurm, variables as own};

/// The variables of `torch.distributed`'s `env://`, which `torchrun` and Kubeflow's operator set, too.
const RANK: &str = "RANK";
const WORLD_SIZE: &str = "WORLD_SIZE";
const LOCAL_RANK: &str = "LOCAL_RANK";
const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
const MASTER_ADDR: &str = "MASTER_ADDR";
const MASTER_PORT: &str = "MASTER_PORT";

/// Those of `torchrun`, of which the first tells that it was it.
const TORCHELASTIC_RUN_ID: &str = "TORCHELASTIC_RUN_ID";
const TORCHELASTIC_RESTART_COUNT: &str = "TORCHELASTIC_RESTART_COUNT";
const TORCHELASTIC_USE_AGENT_STORE: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// Those of a step of SLURM; see `srun(1)`.
const SLURM_STEP_ID: &str = "SLURM_STEP_ID";
const SLURM_STEP_NUM_TASKS: &str = "SLURM_STEP_NUM_TASKS";
const SLURM_STEP_NODELIST: &str = "SLURM_STEP_NODELIST";
const SLURM_STEP_TASKS_PER_NODE: &str = "SLURM_STEP_TASKS_PER_NODE";
const SLURM_PROCID: &str = "SLURM_PROCID";
const SLURM_LOCALID: &str = "SLURM_LOCALID";
const SLURM_NODEID: &str = "SLURM_NODEID";
const SLURM_JOB_ID: &str = "SLURM_JOB_ID";

/// The address at which the host's own launcher serves.
const OWN_ADDRESS: &str = "127.0.0.1";

/// Ports of jobs of SLURM: from the first, so many; all below those that systems give to outgoing connections.
const FIRST_PORT: u16 = 10_000;
const PORTS: u64 = 20_000;

/// Longer values are cut in messages.
const SHOWN_CHARACTERS: usize = 60;

const A_COUNT: &str = "a number of processes: a whole number from 1";
const A_RANK: &str = "a rank: a whole number from 0";
const A_PORT: &str = "a port: a whole number from 1 to 65535";
const A_NUMBER: &str = "a whole number from 0";

/// One of several processes of a run, and where they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// This process, from 0.
    pub rank: usize,
    /// How many there are; at least 2.
    pub world_size: usize,
    /// This process among those of its machine, from 0; the number of its GPU.
    pub local_rank: usize,
    /// How many of them are on this machine.
    pub local_world_size: usize,
    /// The host at which the store is served: a name or an IP address.
    pub master_address: String,
    /// Its port; not zero.
    pub master_port: u16,
    /// Who started the processes.
    pub origin: Origin,
    /// How often all processes were started again. Keys of the store must differ from one time to the next.
    pub restart: u32,
    /// Whether the one who started the processes serves the store, so that every rank is a client of it; otherwise rank 0
    /// serves it.
    pub agent_store: bool,
    /// The open socket that listens at the port, for rank 0 to serve the store with; only from the host's own launcher.
    pub listening: Option<i32>,
    /// Whether all ranks are on this machine, so that nothing needs to be reachable from another.
    pub loopback_only: bool,
}

impl Launch {
    /// Reads which process this is from the environment; `lookup` gives the value of a variable. `None` if this is the only
    /// process of its run, whoever started it. A variable that is empty counts as not set.
    ///
    /// Of several, the host's own launcher comes first, then `torchrun`, then `RANK`, then a step of SLURM.
    ///
    /// # Errors
    ///
    /// Variables of which only some are set, or with a value that cannot be.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, LaunchError> {
        let variables = Variables { lookup };
        if variables.any(&[own::RANK, own::WORLD_SIZE, own::MASTER_PORT]) {
            return variables.of_host();
        }
        if variables.is_set(TORCHELASTIC_RUN_ID) {
            return variables.of_torchrun();
        }
        let is_step = variables.is_set(SLURM_STEP_ID) && variables.count(SLURM_STEP_NUM_TASKS)?.unwrap_or(1) > 1;
        // In a step, people set the other three so that the processes meet where they say.
        if variables.is_set(RANK) || (!is_step && variables.any(&[WORLD_SIZE, MASTER_ADDR, MASTER_PORT])) {
            return variables.by_hand();
        }
        if is_step { variables.of_slurm().map(Some) } else { Ok(None) }
    }
}

/// How often this process was started again by the one who watches it, alone or with others; 0 where nobody says.
pub fn restart_count(lookup: impl Fn(&str) -> Option<String>) -> u32 {
    let variables = Variables { lookup };
    let name = if variables.is_set(own::RANK) {
        own::RESTART_COUNT
    } else if variables.is_set(TORCHELASTIC_RUN_ID) {
        TORCHELASTIC_RESTART_COUNT
    } else {
        return 0;
    };
    variables.number(name, A_NUMBER).ok().flatten().unwrap_or_default()
}

/// The environment.
struct Variables<F> {
    lookup: F,
}

/// Where a process stands among others: its rank and how many there are.
struct Place {
    rank: u32,
    size: u32,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is_set(name))
    }

    fn number<T: std::str::FromStr>(
        &self,
        variable: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, LaunchError> {
        let read = |value: String| value.parse().map_err(|_| unreadable(variable, &value, expected));
        self.text(variable).map(read).transpose()
    }

    /// A number that is not zero.
    fn count(&self, variable: &'static str) -> Result<Option<u32>, LaunchError> {
        match self.number(variable, A_COUNT)? {
            Some(0) => Err(unreadable(variable, "0", A_COUNT)),
            count => Ok(count),
        }
    }

    fn port(&self, variable: &'static str) -> Result<Option<u16>, LaunchError> {
        match self.number(variable, A_PORT)? {
            Some(0) => Err(unreadable(variable, "0", A_PORT)),
            port => Ok(port),
        }
    }

    /// The rank and the number of processes; `None` for what is not set.
    fn place(&self, [variable, size_variable]: [&'static str; 2]) -> Result<(Option<u32>, Option<u32>), LaunchError> {
        let (rank, size) = (self.number(variable, A_RANK)?, self.count(size_variable)?);
        match (rank, size) {
            (Some(rank), Some(size)) if rank >= size => {
                Err(LaunchError::NoSuchRank { variable, rank, size_variable, size })
            }
            place => Ok(place),
        }
    }

    /// What is wrong if something of `names`, which `origin` sets, is not set.
    fn missing(&self, origin: Origin, names: &[&'static str]) -> LaunchError {
        let (set, missing) = names.iter().partition(|name| self.is_set(name));
        LaunchError::Missing { origin, set, missing }
    }

    fn of_host(&self) -> Result<Option<Launch>, LaunchError> {
        const NAMES: [&str; 3] = [own::RANK, own::WORLD_SIZE, own::MASTER_PORT];
        let place = self.place([own::RANK, own::WORLD_SIZE])?;
        let ((Some(rank), Some(size)), Some(port)) = (place, self.port(own::MASTER_PORT)?) else {
            return Err(self.missing(Origin::Host, &NAMES));
        };
        let place = Place { rank, size };
        let launch = launch(Origin::Host, &place, &place, OWN_ADDRESS.to_owned(), port);
        let restart = self.number(own::RESTART_COUNT, A_NUMBER)?.unwrap_or_default();
        let listening = self.number(own::LISTEN_FD, A_NUMBER)?.filter(|_| rank == 0);
        Ok((size > 1).then_some(Launch { restart, listening, ..launch }))
    }

    fn of_torchrun(&self) -> Result<Option<Launch>, LaunchError> {
        const NAMES: [&str; 6] = [RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT];
        let ((rank, size), (local_rank, local_size)) = self.places()?;
        if size == Some(1) {
            return Ok(None);
        }
        let (Some(rank), Some(size), Some(local_rank), Some(local_size), Some(address), Some(port)) =
            (rank, size, local_rank, local_size, self.text(MASTER_ADDR), self.port(MASTER_PORT)?)
        else {
            return Err(self.missing(Origin::Torchrun, &NAMES));
        };
        let local = Place { rank: local_rank, size: local_size };
        let launch = launch(Origin::Torchrun, &Place { rank, size }, &local, address, port);
        let restart = self.number(TORCHELASTIC_RESTART_COUNT, A_NUMBER)?.unwrap_or_default();
        let agent_store = self.text(TORCHELASTIC_USE_AGENT_STORE).is_some_and(|value| value == "True");
        Ok(Some(Launch { restart, agent_store, ..launch }))
    }

    fn by_hand(&self) -> Result<Option<Launch>, LaunchError> {
        let ((rank, size), (local_rank, local_size)) = self.places()?;
        if size == Some(1) {
            return Ok(None);
        }
        let (Some(rank), Some(size), Some(address), Some(port)) =
            (rank, size, self.text(MASTER_ADDR), self.port(MASTER_PORT)?)
        else {
            return Err(self.missing(Origin::Variables, &[RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT]));
        };
        let place = Place { rank, size };
        let local = match (local_rank, local_size) {
            (Some(rank), Some(size)) => Place { rank, size },
            // Those of another machine cannot reach a loopback address.
            (None, None) if is_loopback(&address) => Place { rank, size },
            // As Kubeflow's operator starts them.
            (None, None) => Place { rank: 0, size: 1 },
            _ => return Err(self.missing(Origin::Variables, &[LOCAL_RANK, LOCAL_WORLD_SIZE])),
        };
        Ok(Some(launch(Origin::Variables, &place, &local, address, port)))
    }

    fn of_slurm(&self) -> Result<Launch, LaunchError> {
        const NAMES: [&str; 7] = [
            SLURM_STEP_NUM_TASKS,
            SLURM_PROCID,
            SLURM_LOCALID,
            SLURM_NODEID,
            SLURM_STEP_TASKS_PER_NODE,
            SLURM_STEP_NODELIST,
            SLURM_JOB_ID,
        ];
        let place = self.place([SLURM_PROCID, SLURM_STEP_NUM_TASKS])?;
        let (local_rank, node) = (self.number(SLURM_LOCALID, A_RANK)?, self.number(SLURM_NODEID, A_NUMBER)?);
        let (tasks, nodes) = (self.text(SLURM_STEP_TASKS_PER_NODE), self.text(SLURM_STEP_NODELIST));
        let job: Option<u64> = self.number(SLURM_JOB_ID, A_NUMBER)?;
        let ((Some(rank), Some(size)), Some(local_rank), Some(node), Some(tasks), Some(nodes), Some(job)) =
            (place, local_rank, node, tasks, nodes, job)
        else {
            return Err(self.missing(Origin::Slurm, &NAMES));
        };
        if let Some(world_size) = self.count(WORLD_SIZE)?.filter(|world_size| *world_size != size) {
            let (first, second) = (WORLD_SIZE, SLURM_STEP_NUM_TASKS);
            return Err(LaunchError::Contradiction { first, first_value: world_size, second, second_value: size });
        }
        let local_size = slurm::tasks_of_node(&tasks, node).ok_or_else(|| {
            unreadable(SLURM_STEP_TASKS_PER_NODE, &tasks, "a list of the tasks of all nodes, as in `2(x3),1`")
        })?;
        let local = self.fits(
            Place { rank: local_rank, size: local_size },
            size,
            [SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE, SLURM_STEP_NUM_TASKS],
        )?;
        let first = slurm::first_host(&nodes)
            .ok_or_else(|| unreadable(SLURM_STEP_NODELIST, &nodes, "a list of nodes, as in `node[01-03,07],x1`"));
        let address = self.text(MASTER_ADDR).map_or(first, Ok)?;
        let step: Option<u64> = self.number(SLURM_STEP_ID, A_NUMBER)?;
        let port = self.port(MASTER_PORT)?.unwrap_or_else(|| port_of(job, step.unwrap_or_default()));
        Ok(launch(Origin::Slurm, &Place { rank, size }, &local, address, port))
    }

    /// The two places of `env://`: among all processes, and among those of this machine.
    #[expect(clippy::type_complexity, reason = "two pairs of what may not be set")]
    fn places(&self) -> Result<((Option<u32>, Option<u32>), (Option<u32>, Option<u32>)), LaunchError> {
        let place = self.place([RANK, WORLD_SIZE])?;
        let local = self.place([LOCAL_RANK, LOCAL_WORLD_SIZE])?;
        if let (Some(size), (Some(rank), Some(local_size))) = (place.1, local) {
            self.fits(Place { rank, size: local_size }, size, [LOCAL_RANK, LOCAL_WORLD_SIZE, WORLD_SIZE])?;
        }
        Ok((place, local))
    }

    /// The place among the processes of a machine, if a run of `size` processes can have it.
    fn fits(
        &self,
        local: Place,
        size: u32,
        [variable, local_variable, size_variable]: [&'static str; 3],
    ) -> Result<Place, LaunchError> {
        if local.rank >= local.size {
            let (rank, size) = (local.rank, local.size);
            return Err(LaunchError::NoSuchRank { variable, rank, size_variable: local_variable, size });
        }
        if local.size > size {
            return Err(LaunchError::Contradiction {
                first: local_variable,
                first_value: local.size,
                second: size_variable,
                second_value: size,
            });
        }
        Ok(local)
    }
}

fn launch(origin: Origin, place: &Place, local: &Place, master_address: String, master_port: u16) -> Launch {
    Launch {
        rank: place.rank as usize,
        world_size: place.size as usize,
        local_rank: local.rank as usize,
        local_world_size: local.size as usize,
        loopback_only: local.size == place.size || is_loopback(&master_address),
        master_address,
        master_port,
        origin,
        restart: 0,
        agent_store: false,
        listening: None,
    }
}

fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The port of a step of a job of SLURM: the same for all its tasks, and another for the next job and step of a machine.
fn port_of(job: u64, step: u64) -> u16 {
    let offset = job.wrapping_mul(31).wrapping_add(step) % PORTS;
    u16::try_from(offset).map_or(FIRST_PORT, |offset| FIRST_PORT + offset)
}

fn unreadable(variable: &'static str, value: &str, expected: &'static str) -> LaunchError {
    let mut shown: String = value.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    LaunchError::Unreadable { variable, value: shown, expected }
}

#[cfg(test)]
mod tests;
