//! How ranks meet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::DistributedError;
use super::watch::{Watch, failed_key};
use crate::torch::c10d::{Group, Serving, Store};

/// How often a rank looks for what another one has to write.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where and as what a process joins the others.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Which rank it is.
    pub rank: usize,
    /// How many there are; at least two.
    pub world_size: usize,
    /// The machine that has the store.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Whether this process serves the store.
    pub serving: Serving,
    /// Whether rank zero serves it; otherwise a launcher does.
    pub zero_serves: bool,
    /// Whether only processes of this machine can reach this one.
    pub loopback: bool,
    /// How many times the ranks have been started before, by a launcher whose store outlives them.
    pub attempt: u32,
    /// How long ranks wait for one that shows no sign of life.
    pub timeout: Duration,
}

/// A process of the run, as the others know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    process: u32,
    machine: String,
    version: String,
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} on {}", self.process, self.machine)
    }
}

/// All ranks of a run, connected.
pub(super) struct Joined {
    pub(super) rank: usize,
    pub(super) world_size: usize,
    pub(super) group: Rc<Group>,
    /// For operations whose order has nothing to do with that of the others: statistics of batch normalization, between the sums
    /// of gradients.
    pub(super) statistics: Rc<Group>,
    pub(super) store: Arc<Store>,
    pub(super) watch: Watch,
    /// The store itself, where this process serves it. It is the last to go.
    pub(super) served: Arc<Store>,
}

impl fmt::Debug for Joined {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Joined").field("rank", &self.rank).field("world_size", &self.world_size).finish()
    }
}

impl Joined {
    /// Waits for all ranks, and connects them.
    pub(super) fn meet(meeting: &Meeting) -> Result<Joined, DistributedError> {
        let &Meeting { rank, world_size, timeout, .. } = meeting;
        let address = format!("{}:{}", meeting.address, meeting.port);
        let not_reached = |source| DistributedError::Store { rank, address: address.clone(), source };
        let serving = listening(meeting).map_err(|source| DistributedError::Port { port: meeting.port, source })?;
        let served = Store::connect(&meeting.address, meeting.port, serving, timeout).map_err(not_reached)?;
        let store = served.prefixed(&format!("host/{}", meeting.attempt)).map_err(not_reached)?;
        let own = Member {
            process: std::process::id(),
            machine: machine_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let text = serde_json::to_vec(&own).map_err(|source| DistributedError::Message { rank, source })?;
        store.set(&member_key(rank), &text).map_err(not_reached)?;
        let members = members(&store, meeting, &address)?;
        if members[0].version != own.version {
            return Err(differs(&store, rank, "another version of `host`", own.version, members[0].version.clone()));
        }
        let failed = |action| move |source| DistributedError::Operation { world_size, action, source };
        let beats = store.prefixed("").map_err(not_reached)?;
        let watch = Watch::start(beats, rank, members, meeting.zero_serves, timeout).map_err(|error| {
            let message = format!("cannot start a thread: {error}");
            failed("watch each other")(crate::torch::TorchError::Operator { message })
        })?;
        let is_local = meeting.loopback || is_loopback(&meeting.address);
        let interface = is_local.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let connect = |name: &str| {
            let apart = store.prefixed(name).map_err(failed("connect"))?;
            let group = Group::connect(&apart, rank, world_size, interface, timeout, watch.patience());
            group.map(Rc::new).map_err(|error| watch.explain("connect", error))
        };
        let (group, statistics) = (connect("gloo")?, connect("gloo-statistics")?);
        let (store, served) = (Arc::new(store), Arc::new(served));
        Ok(Joined { rank, world_size, group, statistics, store, watch, served })
    }

    /// The value of a key, once another rank has set it.
    pub(super) fn wait_for(&self, key: &str) -> Result<Vec<u8>, DistributedError> {
        let began = Instant::now();
        let failed = |source| self.watch.explain("compare what they are made from", source);
        loop {
            if let Some(value) = self.store.get(key).map_err(failed)? {
                return Ok(value);
            }
            if began.elapsed() > Duration::from_secs(1) {
                self.watch.look();
            }
            if let Some(error) = self.watch.reason() {
                return Err(error);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Tells the others that this rank differs from rank zero.
    pub(super) fn differs(&self, what: &'static str, own: String, of_zero: String) -> DistributedError {
        differs(&self.store, self.rank, what, own, of_zero)
    }
}

/// Listens at the store's port with an IPv4 socket of our own. libtorch's is one for both protocols, and looks up the name of each
/// peer in its IPv6 form, for which a machine has no entry in `/etc/hosts`: where the name server does not answer, nobody is served
/// for seconds.
#[cfg(unix)]
fn listening(meeting: &Meeting) -> std::io::Result<Serving> {
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;

    let is_ipv6 = meeting.address.parse().is_ok_and(|address: IpAddr| address.is_ipv6());
    if meeting.serving != Serving::Listening || is_ipv6 {
        return Ok(meeting.serving);
    }
    let local = meeting.loopback || is_loopback(&meeting.address);
    let address = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    Ok(Serving::Inherited(TcpListener::bind((address, meeting.port))?.into_raw_fd()))
}

#[cfg(not(unix))]
fn listening(meeting: &Meeting) -> std::io::Result<Serving> {
    Ok(meeting.serving)
}

fn differs(store: &Store, rank: usize, what: &'static str, own: String, of_zero: String) -> DistributedError {
    let error = DistributedError::Differs { rank, what, own, of_zero };
    let _ = store.set(&failed_key(rank), error.to_string().as_bytes());
    error
}

fn member_key(rank: usize) -> String {
    format!("member/{rank}")
}

/// Who the ranks are, when all are there.
fn members(store: &Store, meeting: &Meeting, address: &str) -> Result<Vec<Member>, DistributedError> {
    let &Meeting { rank: own, world_size, timeout, .. } = meeting;
    let not_reached = |source| DistributedError::Store { rank: own, address: address.to_owned(), source };
    let began = Instant::now();
    let mut members: Vec<Option<Member>> = vec![None; world_size];
    loop {
        for (rank, member) in members.iter_mut().enumerate().filter(|(_, member)| member.is_none()) {
            if let Some(text) = store.get(&member_key(rank)).map_err(not_reached)? {
                let found = serde_json::from_slice(&text);
                *member = Some(found.map_err(|source| DistributedError::Message { rank, source })?);
            }
        }
        let missing: Vec<usize> = (0..world_size).filter(|rank| members[*rank].is_none()).collect();
        if missing.is_empty() {
            return Ok(members.into_iter().flatten().collect());
        }
        for rank in (0..world_size).filter(|rank| *rank != own) {
            if let Some(message) = store.get(&failed_key(rank)).map_err(not_reached)? {
                let message = String::from_utf8_lossy(&message).into_owned();
                return Err(DistributedError::Failed { rank, message });
            }
        }
        // Who waits longest tells the others, and they wait no longer.
        let told = store.get(MISSING).map_err(not_reached)?;
        if told.is_some() || began.elapsed() > timeout {
            if told.is_none() {
                let _ = store.set(MISSING, b"");
            }
            let here = (0..world_size).filter(|rank| members[*rank].is_some());
            give_up(store, own, here.collect());
            return Err(DistributedError::Missing { missing, world_size, address: address.to_owned(), timeout });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The key that says that a rank has not come in time.
const MISSING: &str = "missing";

/// Before this rank gives up: rank zero, which may have the store, waits a little until those who are `here` have done so.
fn give_up(store: &Store, own: usize, mut here: Vec<usize>) {
    const AT_MOST: Duration = Duration::from_secs(4);
    let key = |rank: usize| format!("given-up/{rank}");
    let _ = store.set(&key(own), b"");
    let began = Instant::now();
    while own == 0 && began.elapsed() < AT_MOST {
        here.retain(|rank| *rank != own && matches!(store.get(&key(*rank)), Ok(None)));
        if here.is_empty() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether an address is that of this machine for itself.
fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// This machine, as people know it.
fn machine_name() -> String {
    #[cfg(unix)]
    {
        let mut name = [0u8; 256];
        // SAFETY: the room is as large as it says, and a name that does not fit is cut.
        let status = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        if status == 0 && length > 0 {
            return String::from_utf8_lossy(&name[..length]).into_owned();
        }
    }
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this machine".to_owned())
}
