//! Every environment that says which process this is, and what is wrong with some.

use super::*;
use crate::report::{Problem, Style, render};

const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=node1.example MASTER_PORT=29500 \
                        TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=1 TORCHELASTIC_USE_AGENT_STORE=True";
const STEP: &str = "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=5 SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 \
                    SLURM_STEP_TASKS_PER_NODE=2(x2),1 SLURM_STEP_NODELIST=node[01-03] SLURM_JOB_ID=1234567";

/// The environment in which these are set, `NAME=value NAME=value`; later ones win, and an empty one is not set.
fn read(variables: &str) -> Result<Option<Launch>, LaunchError> {
    Launch::from_environment(lookup(variables))
}

fn lookup(variables: &str) -> impl Fn(&str) -> Option<String> {
    let pairs: Vec<(String, String)> = variables
        .split_ascii_whitespace()
        .map(|pair| pair.split_once('=').expect("a pair"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    move |name| pairs.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.clone())
}

/// A launch in a line.
fn taken(variables: &str) -> String {
    let Launch {
        rank,
        world_size,
        local_rank,
        local_world_size,
        master_address,
        master_port,
        origin,
        restart,
        agent_store,
        listening,
        loopback_only,
    } = read(variables).expect("it can be read").expect("several processes");
    format!(
        "{origin}: {rank} of {world_size}, {local_rank} of {local_world_size}, {master_address}:{master_port}, \
         restart {restart}, agent {agent_store}, listening {listening:?}, loopback {loopback_only}"
    )
}

fn refused(variables: &str) -> String {
    let error = read(variables).expect_err("it cannot be read");
    render(&[Problem::from(&error)], Style::plain())
}

#[test]
fn nothing_is_one_process() {
    for variables in [
        "",
        "LOCAL_RANK=0",
        "RANK= WORLD_SIZE= MASTER_ADDR=",
        "WORLD_SIZE=1",
        "RANK=0 WORLD_SIZE=1 MASTER_ADDR=localhost",
        "TORCHELASTIC_RUN_ID=x RANK=0 WORLD_SIZE=1",
        "HOST_RANK=0 HOST_WORLD_SIZE=1 HOST_MASTER_PORT=5",
        "SLURM_JOB_ID=7 SLURM_NTASKS=8 SLURM_PROCID=0",
        "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0",
    ] {
        assert_eq!(read(variables), Ok(None), "{variables}");
    }
}

#[test]
fn the_hosts_own_launcher() {
    let own = "HOST_RANK=0 HOST_WORLD_SIZE=2 HOST_MASTER_PORT=40001 HOST_LISTEN_FD=5";
    insta::assert_snapshot!(taken(own), @"`host run --processes`: 0 of 2, 0 of 2, 127.0.0.1:40001, restart 0, agent false, listening Some(5), loopback true");
    let second = "HOST_RANK=1 HOST_WORLD_SIZE=2 HOST_MASTER_PORT=40001 HOST_RESTART_COUNT=2";
    insta::assert_snapshot!(taken(second), @"`host run --processes`: 1 of 2, 1 of 2, 127.0.0.1:40001, restart 2, agent false, listening None, loopback true");
    assert_eq!(taken(&format!("{TORCHRUN} {STEP} {own}")), taken(own), "it comes first");
    insta::assert_snapshot!(refused("HOST_RANK=1 HOST_WORLD_SIZE=2"), @"
    × the environment says only in part which of several processes this is: `HOST_MASTER_PORT` is not set
    hint: `HOST_RANK` and `HOST_WORLD_SIZE` are set, as `host run --processes` does: let it start every process
    ");
}

#[test]
fn torchrun() {
    insta::assert_snapshot!(taken(TORCHRUN), @"`torchrun`: 3 of 4, 1 of 2, node1.example:29500, restart 1, agent true, listening None, loopback false");
    assert_eq!(taken(&format!("{STEP} {TORCHRUN}")), taken(TORCHRUN), "`srun torchrun …`");
    let static_store = taken(&format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=False"));
    assert!(static_store.contains("agent false"), "{static_store}");
    let one_machine = taken(&format!("{TORCHRUN} LOCAL_WORLD_SIZE=4 LOCAL_RANK=3"));
    assert!(one_machine.ends_with("loopback true"), "{one_machine}");
    insta::assert_snapshot!(refused("TORCHELASTIC_RUN_ID=x RANK=0 WORLD_SIZE=2 LOCAL_RANK=0"), @"
    × the environment says only in part which of several processes this is: `LOCAL_WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` are not set
    hint: `RANK`, `WORLD_SIZE` and `LOCAL_RANK` are set, as `torchrun` does: let it start every process
    ");
}

#[test]
fn by_hand() {
    let of_kubeflow = "RANK=1 WORLD_SIZE=2 MASTER_ADDR=job-master-0 MASTER_PORT=23456";
    insta::assert_snapshot!(taken(of_kubeflow), @"`RANK` and `WORLD_SIZE` of the environment: 1 of 2, 0 of 1, job-master-0:23456, restart 0, agent false, listening None, loopback false");
    insta::assert_snapshot!(taken("RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=23456"), @"`RANK` and `WORLD_SIZE` of the environment: 1 of 2, 1 of 2, 127.0.0.1:23456, restart 0, agent false, listening None, loopback true");
    insta::assert_snapshot!(taken(&format!("{of_kubeflow} WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4")), @"`RANK` and `WORLD_SIZE` of the environment: 1 of 8, 1 of 4, job-master-0:23456, restart 0, agent false, listening None, loopback false");
    assert_eq!(taken(&format!("{STEP} {of_kubeflow}")), taken(of_kubeflow), "a wrapper in a step");
    insta::assert_snapshot!(refused("RANK=0 WORLD_SIZE=2"), @"
    × the environment says only in part which of several processes this is: `MASTER_ADDR` and `MASTER_PORT` are not set
    hint: set `MASTER_ADDR` and `MASTER_PORT` for every process; or, to train in one process, unset `RANK` and `WORLD_SIZE`
    ");
    insta::assert_snapshot!(refused("MASTER_ADDR=node1"), @"
    × the environment says only in part which of several processes this is: `RANK`, `WORLD_SIZE` and `MASTER_PORT` are not set
    hint: set `RANK`, `WORLD_SIZE` and `MASTER_PORT` for every process; or, to train in one process, unset `MASTER_ADDR`
    ");
    insta::assert_snapshot!(refused(&format!("{of_kubeflow} LOCAL_RANK=0")), @"
    × the environment says only in part which of several processes this is: `LOCAL_WORLD_SIZE` is not set
    hint: set `LOCAL_WORLD_SIZE` for every process; or, to train in one process, unset `LOCAL_RANK`
    ");
}

#[test]
fn a_step_of_slurm() {
    insta::assert_snapshot!(taken(STEP), @"`srun`: 3 of 5, 1 of 2, node01:21577, restart 0, agent false, listening None, loopback false");
    let said = taken(&format!("{STEP} MASTER_ADDR=ib-node01 MASTER_PORT=29500 WORLD_SIZE=5"));
    assert!(said.contains("ib-node01:29500"), "{said}");
    insta::assert_snapshot!(refused(&format!("{STEP} SLURM_LOCALID= SLURM_NODEID=")), @"
    × the environment says only in part which of several processes this is: `SLURM_LOCALID` and `SLURM_NODEID` are not set
    hint: `SLURM_STEP_NUM_TASKS`, `SLURM_PROCID`, `SLURM_STEP_TASKS_PER_NODE`, `SLURM_STEP_NODELIST` and `SLURM_JOB_ID` are set, as `srun` does: let it start every process
    ");
    insta::assert_snapshot!(refused(&format!("{STEP} WORLD_SIZE=4")), @"
    × in the environment `WORLD_SIZE` is 4, but `SLURM_STEP_NUM_TASKS` is 5
    hint: correct `WORLD_SIZE`, or unset it
    ");
    insta::assert_snapshot!(refused(&format!("{STEP} SLURM_STEP_NODELIST=node[01")), @"
    × `SLURM_STEP_NODELIST` in the environment is `node[01`, which is not a list of nodes, as in `node[01-03,07],x1`
    hint: correct `SLURM_STEP_NODELIST`, or unset it if this is one process
    ");
    insta::assert_snapshot!(refused(&format!("{STEP} SLURM_STEP_TASKS_PER_NODE=2")), @"
    × `SLURM_STEP_TASKS_PER_NODE` in the environment is `2`, which is not a list of the tasks of all nodes, as in `2(x3),1`
    hint: correct `SLURM_STEP_TASKS_PER_NODE`, or unset it if this is one process
    ");
    insta::assert_snapshot!(refused(&format!("{STEP} SLURM_LOCALID=2")), @"
    × `SLURM_LOCALID` in the environment is 2, but `SLURM_STEP_TASKS_PER_NODE` is 2: ranks are from 0 to 1
    hint: give every process another `SLURM_LOCALID`, counted from 0
    ");
    let long = "x".repeat(900);
    assert!(refused(&format!("{STEP} SLURM_STEP_NUM_TASKS={long}")).len() < 300);
}

#[test]
fn the_port_of_a_job_is_its_own() {
    for (job, step) in [(0, 0), (1, 0), (u64::MAX, u64::MAX), (1_234_567, 3)] {
        let port = port_of(job, step);
        assert!((10_000..30_000).contains(&port), "{port}");
        assert_ne!(port, port_of(job.wrapping_add(1), step));
        assert_ne!(port, port_of(job, step.wrapping_add(1)));
    }
}

#[test]
fn numbers_that_cannot_be() {
    let with = |change: &str| refused(&format!("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1 {change}"));
    insta::assert_snapshot!(with("RANK=2"), @"
    × `RANK` in the environment is 2, but `WORLD_SIZE` is 2: ranks are from 0 to 1
    hint: give every process another `RANK`, counted from 0
    ");
    insta::assert_snapshot!(with("RANK=-1"), @"
    × `RANK` in the environment is `-1`, which is not a rank: a whole number from 0
    hint: correct `RANK`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("WORLD_SIZE=0"), @"
    × `WORLD_SIZE` in the environment is `0`, which is not a number of processes: a whole number from 1
    hint: correct `WORLD_SIZE`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("WORLD_SIZE=two"), @"
    × `WORLD_SIZE` in the environment is `two`, which is not a number of processes: a whole number from 1
    hint: correct `WORLD_SIZE`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("WORLD_SIZE=4294967296"), @"
    × `WORLD_SIZE` in the environment is `4294967296`, which is not a number of processes: a whole number from 1
    hint: correct `WORLD_SIZE`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("MASTER_PORT=0"), @"
    × `MASTER_PORT` in the environment is `0`, which is not a port: a whole number from 1 to 65535
    hint: correct `MASTER_PORT`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("MASTER_PORT=65536"), @"
    × `MASTER_PORT` in the environment is `65536`, which is not a port: a whole number from 1 to 65535
    hint: correct `MASTER_PORT`, or unset it if this is one process
    ");
    insta::assert_snapshot!(with("LOCAL_RANK=1 LOCAL_WORLD_SIZE=1"), @"
    × `LOCAL_RANK` in the environment is 1, but `LOCAL_WORLD_SIZE` is 1: ranks are from 0 to 0
    hint: give every process another `LOCAL_RANK`, counted from 0
    ");
    insta::assert_snapshot!(with("LOCAL_RANK=1 LOCAL_WORLD_SIZE=3"), @"
    × in the environment `LOCAL_WORLD_SIZE` is 3, but `WORLD_SIZE` is 2
    hint: correct `LOCAL_WORLD_SIZE`, or unset it
    ");
    insta::assert_snapshot!(refused("WORLD_SIZE=1 RANK=1"), @"
    × `RANK` in the environment is 1, but `WORLD_SIZE` is 1: ranks are from 0 to 0
    hint: give every process another `RANK`, counted from 0
    ");
}

#[test]
fn how_often_a_process_was_started_again() {
    let count = |variables| restart_count(lookup(variables));
    assert_eq!(count(""), 0);
    assert_eq!(count("TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=3"), 3);
    assert_eq!(count("TORCHELASTIC_RESTART_COUNT=3"), 0, "of a shell that was started by torchrun once");
    assert_eq!(count("HOST_RANK=1 HOST_RESTART_COUNT=2 TORCHELASTIC_RUN_ID=x TORCHELASTIC_RESTART_COUNT=3"), 2);
    assert_eq!(count("HOST_RANK=1 HOST_RESTART_COUNT=x"), 0);
}
