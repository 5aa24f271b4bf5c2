//! A job of several processes: how this one joins the others, and where it works.

use std::path::{Path, PathBuf};

use host_command::runs::control;
use host_command::runs::folder::RunFolder;
use host_command::runs::ranks::folder_of_rank;
use serde::{Deserialize, Serialize};

use super::start::Start;
use crate::config::Ranks;
use crate::dispatch::Order;
use crate::distributed::{Launch, Meeting, ProcessGroup};
use crate::report::{Problem, Problems};
use crate::run_file::{Backend, DistributedOptions};
use crate::torch::c10d::Serving;

/// The key under which rank zero tells where the run is.
const PLACE: &str = "place";

/// Waits for the other processes of the run, if it has several.
pub(super) fn join(launch: Option<&Launch>, options: &DistributedOptions) -> Result<ProcessGroup, Problem> {
    let Some(launch) = launch else { return Ok(ProcessGroup::single()) };
    if options.backend == Backend::Nccl {
        return Err(Problem::new("`distributed.backend` = `nccl`, and this host was built without NCCL".to_owned())
            .with_hint("`auto` takes what there is".to_owned()));
    }
    let serving = match launch.listening {
        _ if launch.agent_store || launch.rank > 0 => Serving::No,
        Some(listening) => Serving::Inherited(listening),
        None => Serving::Listening,
    };
    let meeting = Meeting {
        rank: launch.rank,
        world_size: launch.world_size,
        address: launch.master_address.clone(),
        port: launch.master_port,
        serving,
        zero_serves: !launch.agent_store,
        loopback: launch.loopback_only,
        attempt: launch.restart,
        timeout: options.timeout(),
    };
    ProcessGroup::join(&meeting).map_err(|error| Problem::from(&error))
}

/// What is said at the start.
pub(super) fn description(launch: &Launch) -> String {
    let Launch { rank, world_size, origin, master_address, master_port, .. } = launch;
    let again = if launch.restart == 0 { String::new() } else { format!(", started again ({})", launch.restart) };
    format!("rank {rank} of {world_size} by {origin}{again}: gloo, store at {master_address}:{master_port}")
}

/// Leaves the plugins that run on this rank.
pub(super) fn choose(order: &mut Order, group: &ProcessGroup) {
    if group.rank() > 0 {
        order.planned.retain(|planned| planned.ranks() == Ranks::All);
    }
}

/// Where the run is, as rank zero tells it.
#[derive(Serialize, Deserialize)]
struct Place {
    folder: PathBuf,
    resume_from: Option<PathBuf>,
}

/// The start of this rank: `find` is rank zero's; the others have a folder of their own in its run folder.
pub(super) fn start(group: &ProcessGroup, find: impl FnOnce() -> Result<Start, Problems>) -> Result<Start, Problems> {
    if group.is_single() {
        return find();
    }
    let found = if group.rank() == 0 { Some(find()?) } else { None };
    let told = group.tell(PLACE, || {
        let place = found.as_ref().map(|start| Place {
            folder: start.folder.path().to_owned(),
            resume_from: start.resume_from.as_deref().map(absolute),
        });
        serde_json::to_vec(&place).unwrap_or_default()
    });
    let told = told.map_err(|error| Problem::from(&error))?;
    if let Some(start) = found {
        return Ok(start);
    }
    let not_understood =
        |error: serde_json::Error| Problem::new("rank 0 did not say where the run is").with_cause(&error);
    let place: Place = serde_json::from_slice(&told).map_err(not_understood)?;
    if let Some(checkpoint) = place.resume_from.as_ref().filter(|checkpoint| !checkpoint.is_dir()) {
        let message = format!("the checkpoint `{}` of rank 0 is not on this machine", checkpoint.display());
        let hint = "the run folder must be in a folder that all machines share".to_owned();
        return Err(Problem::new(message).with_hint(hint).into());
    }
    let path = folder_of_rank(&place.folder, group.rank());
    let folder = RunFolder::take(&path, false).map_err(|error| Problem::from(&error))?;
    control::clear(folder.path())
        .map_err(|error| Problem::new("cannot remove old requests to the run").with_cause(&error))?;
    folder.remove_temporaries().map_err(|error| Problem::from(&error))?;
    Ok(Start { folder, resume_from: place.resume_from, sudden_end: None })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
