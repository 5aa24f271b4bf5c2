//! The ranks of a run of several processes: rank zero's folder is the run's, and the others have theirs in it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::folder::is_run;
use super::status::{FoundRun, State};

/// Where the ranks other than zero have their folders, within the run's.
pub const RANKS_FOLDER: &str = "ranks";

/// The folder of a rank above zero.
pub fn folder_of_rank(run: &Path, rank: usize) -> PathBuf {
    run.join(RANKS_FOLDER).join(rank.to_string())
}

/// The folder of the run that `path` is a part of, if it is the folder of one of its ranks, or that of all of them.
pub fn run_of_rank(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let ranks = path.ancestors().take(2).find(|folder| folder.ends_with(RANKS_FOLDER))?;
    ranks.parent().filter(|run| is_run(run)).map(Path::to_owned)
}

/// A rank of a run as it was found.
#[derive(Clone, Debug, Serialize)]
pub struct FoundRank {
    /// Its number.
    pub rank: u64,
    /// What it does, or how it ended; a rank that has written nothing yet is starting.
    pub state: State,
    /// Its process, by its number; none until it has written a status.
    pub process: Option<u32>,
    /// The machine of the process.
    pub machine: Option<String>,
    /// The epoch that it is in.
    pub epoch: u64,
    /// Steps of the run.
    pub step: u64,
    /// Seconds since it wrote its status; none until it has.
    pub age: Option<f64>,
    /// Whether its status says that it lives, and no process does.
    pub stale: bool,
    /// What failed on it.
    pub error: Option<String>,
    /// Its folder.
    pub folder: String,
}

/// The ranks of a run, in order; none if it has one process. Folders that an earlier, larger number of ranks has left are not
/// among them.
pub fn ranks_of(run: &FoundRun) -> Vec<FoundRank> {
    let world_size = run.status.world_size.unwrap_or(1);
    if world_size < 2 {
        return Vec::new();
    }
    let others = (1..world_size).map(|rank| {
        let folder = folder_of_rank(&run.folder, usize::try_from(rank).unwrap_or(usize::MAX));
        match FoundRun::read(&folder).filter(|found| !is_of_before(found, run)) {
            Some(found) => of(rank, &found),
            None => FoundRank {
                rank,
                state: State::Starting,
                process: None,
                machine: None,
                epoch: 0,
                step: 0,
                age: None,
                stale: false,
                error: None,
                folder: folder.display().to_string(),
            },
        }
    });
    std::iter::once(of(0, run)).chain(others).collect()
}

fn of(rank: u64, found: &FoundRun) -> FoundRank {
    let FoundRun { folder, status, is_stale, age } = found;
    FoundRank {
        rank,
        state: status.state,
        process: Some(status.process),
        machine: Some(status.machine.clone()),
        epoch: status.position.epoch,
        step: status.position.global_step,
        age: Some(age.as_secs_f64()),
        stale: *is_stale,
        error: status.error.clone(),
        folder: folder.display().to_string(),
    }
}

/// Whether a rank's status is of a process before those that train now: it had ended before they began.
fn is_of_before(rank: &FoundRun, run: &FoundRun) -> bool {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match (time(&rank.status.updated), time(&run.status.started)) {
        (Some(ended), Some(began)) => !rank.status.state.is_live() && ended < began,
        // Nothing was written yet.
        (None, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::folder::RunFolder;
    use crate::runs::status::{PositionStatus, STATUS_FILE, Status, find_run, runs_in};

    /// Writes the status of a rank into a folder of its own; nobody owns it afterwards.
    fn write(run: &Path, rank: u64, world_size: u64, state: State, updated: &str) {
        let path = if rank == 0 { run.to_owned() } else { folder_of_rank(run, rank as usize) };
        let folder = RunFolder::take(&path, false).unwrap();
        let status = Status {
            state,
            rank: Some(rank),
            world_size: Some(world_size),
            started: "2026-01-01T10:00:00+01:00".to_owned(),
            updated: updated.to_owned(),
            position: PositionStatus { epoch: 1, step: 2, global_step: 2 + rank, samples: 8 },
            error: (state == State::Failed).then(|| "out of memory".to_owned()),
            ..Status::default()
        };
        folder.write(STATUS_FILE, &serde_json::to_vec(&status).unwrap()).unwrap();
    }

    #[test]
    fn each_rank_is_shown_and_what_is_left_of_others_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 0, 4, State::Failed, "2026-01-01T10:05:00+01:00");
        write(folder.path(), 1, 4, State::Failed, "2026-01-01T09:05:00+00:00");
        // It ended before the others began, and has not begun again.
        write(folder.path(), 2, 4, State::Finished, "2026-01-01T08:59:59+00:00");
        write(folder.path(), 4, 5, State::Finished, "2026-01-01T10:05:00+01:00");
        let ranks = ranks_of(&FoundRun::read(folder.path()).unwrap());
        let seen: Vec<_> = ranks.iter().map(|rank| (rank.rank, rank.state, rank.step, rank.error.is_some())).collect();
        let starting = |rank| (rank, State::Starting, 0, false);
        assert_eq!(seen, [(0, State::Failed, 2, true), (1, State::Failed, 3, true), starting(2), starting(3)]);
    }

    #[test]
    fn a_rank_without_a_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let _owner = RunFolder::take(folder.path(), false).unwrap();
        let status = Status { state: State::Running, world_size: Some(2), ..Status::default() };
        std::fs::write(folder.path().join(STATUS_FILE), serde_json::to_vec(&status).unwrap()).unwrap();
        write(folder.path(), 1, 2, State::Running, "2026-01-01T10:05:00+01:00");
        let ranks = ranks_of(&FoundRun::read(folder.path()).unwrap());
        assert_eq!((ranks[0].stale, ranks[1].stale), (false, true));
    }

    #[test]
    fn the_folder_of_a_rank_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        write(&run, 0, 2, State::Finished, "2026-01-01T10:05:00+01:00");
        write(&run, 1, 2, State::Finished, "2026-01-01T10:05:00+01:00");
        let of_rank = folder_of_rank(&run, 1);
        let run = run.canonicalize().unwrap();
        for path in [&of_rank, of_rank.parent().unwrap()] {
            assert_eq!(find_run(path), Some(run.clone()), "{}", path.display());
            assert_eq!(runs_in(path), std::slice::from_ref(&run), "{}", path.display());
        }
        assert_eq!(run_of_rank(&run), None);
        assert_eq!(runs_in(folder.path()), [folder.path().join("run")]);
        assert!(ranks_of(&FoundRun { status: Status::default(), ..FoundRun::read(&run).unwrap() }).is_empty());
    }
}
