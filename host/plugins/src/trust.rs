//! Who else can change what is loaded: whoever can write a library, or a folder above it, decides what runs in this user's
//! name.

use std::fmt;
use std::path::{Path, PathBuf};

use host_command::report::Report;

/// A file or a folder that somebody other than this user and root can change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{by} can change `{path}`, and with it what is loaded")]
pub struct Exposed {
    /// The file or the folder.
    pub path: PathBuf,
    /// Who can.
    pub by: By,
}

/// Who can change a file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Every user of the machine.
    Everybody,
    /// The members of a group, by its number.
    Group(u32),
    /// Another user, by its number, who owns it.
    Owner(u32),
}

impl fmt::Display for By {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => formatter.write_str("everybody"),
            Self::Group(group) => write!(formatter, "the group {group}"),
            Self::Owner(owner) => write!(formatter, "the user {owner}"),
        }
    }
}

impl Report for Exposed {
    fn hint(&self) -> Option<String> {
        let path = self.path.display();
        Some(match self.by {
            By::Everybody | By::Group(_) => format!("take the right away: `chmod go-w {path}`"),
            By::Owner(_) => format!("own it yourself: copy it, or `chown` it; it is about `{path}`"),
        })
    }
}

/// What somebody else can change of the way to each of `files`: the file, the folders above it, and the same of each link on
/// the way. Each file or folder is there once, in the order of its first use.
///
/// Files in a folder with the sticky bit, as `/tmp` has it, belong only to their owners. A group counts unless it is the
/// user's own, by the convention that its number is the user's.
///
/// What access lists allow is not seen, nor anything on a system without users in the sense of Unix.
pub fn exposed<'a>(files: impl IntoIterator<Item = &'a Path>) -> Vec<Exposed> {
    let mut found: Vec<Exposed> = Vec::new();
    for file in files {
        for exposed in on_the_way(file) {
            if !found.contains(&exposed) {
                found.push(exposed);
            }
        }
    }
    found
}

/// What everybody can put new files into; the sticky bit does not help there.
pub fn open_folder(folder: &Path) -> Vec<Exposed> {
    let mut found = on_the_way(folder);
    let itself = folder.canonicalize().ok().and_then(|folder| itself(&folder, true));
    found.extend(itself.filter(|itself| !found.contains(itself)).into_iter().collect::<Vec<_>>());
    found
}

#[cfg(unix)]
fn on_the_way(file: &Path) -> Vec<Exposed> {
    use std::collections::VecDeque;
    use std::path::Component;

    /// As many links as Linux follows.
    const MOST_LINKS: usize = 40;
    let Ok(absolute) = std::path::absolute(file) else { return Vec::new() };
    let own = |component: Component<'_>| component.as_os_str().to_owned();
    let mut left: VecDeque<_> = absolute.components().map(own).collect();
    let mut at = PathBuf::from("/");
    let (mut found, mut links) = (Vec::new(), 0);
    while let Some(component) = left.pop_front() {
        match Path::new(&component).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::Normal(name)) => at.push(name),
            _ => continue,
        }
        let Ok(metadata) = at.symlink_metadata() else { break };
        if metadata.is_symlink() && links < MOST_LINKS {
            links += 1;
            found.extend(owner(&at, &metadata));
            let Ok(target) = at.read_link() else { break };
            at.pop();
            target.components().rev().for_each(|component| left.push_front(own(component)));
            continue;
        }
        found.extend(itself(&at, false));
    }
    found
}

/// Whether somebody else can change the file or folder at `path`, or, where it `is_listed`, put a new file into it.
#[cfg(unix)]
fn itself(path: &Path, is_listed: bool) -> Option<Exposed> {
    use std::os::unix::fs::MetadataExt;

    const STICKY: u32 = 0o1000;
    let metadata = path.metadata().ok()?;
    let mode = metadata.mode();
    if metadata.is_dir() && mode & STICKY != 0 && !is_listed {
        // Nobody but its owner and that of a file in it changes that file.
        return owner(path, &metadata);
    }
    let is_own = |group: u32| group == rustix::process::geteuid().as_raw() || group == 0;
    if mode & 0o002 != 0 {
        Some(Exposed { path: path.to_owned(), by: By::Everybody })
    } else if mode & 0o020 != 0 && !is_own(metadata.gid()) {
        Some(Exposed { path: path.to_owned(), by: By::Group(metadata.gid()) })
    } else {
        owner(path, &metadata)
    }
}

/// Whether it belongs to another user, who may give itself any right.
#[cfg(unix)]
fn owner(path: &Path, metadata: &std::fs::Metadata) -> Option<Exposed> {
    let owner = std::os::unix::fs::MetadataExt::uid(metadata);
    let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    (!is_trusted).then(|| Exposed { path: path.to_owned(), by: By::Owner(owner) })
}

#[cfg(not(unix))]
fn on_the_way(_: &Path) -> Vec<Exposed> {
    Vec::new()
}

#[cfg(not(unix))]
fn itself(_: &Path, _: bool) -> Option<Exposed> {
    None
}

/// Where a link leads to in the end; `None` if the path is none.
pub fn link_target(path: &Path) -> Option<PathBuf> {
    path.is_symlink().then(|| path.canonicalize().ok()).flatten()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn who(file: &Path) -> Vec<(PathBuf, By)> {
        exposed([file]).into_iter().map(|exposed| (exposed.path, exposed.by)).collect()
    }

    /// A folder with a folder `plugins` with a library, that nobody else can write, whatever the umask.
    fn private() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        let library = plugins.join("libmine.so");
        std::fs::create_dir(&plugins).unwrap();
        std::fs::write(&library, "mine").unwrap();
        chmod(&plugins, 0o755);
        chmod(&library, 0o644);
        (folder, plugins, library)
    }

    #[test]
    fn what_others_can_write_is_found_on_the_whole_way() {
        let (folder, plugins, library) = private();
        // The temporary folder itself has the sticky bit.
        assert_eq!(who(&library), []);
        chmod(&library, 0o666);
        assert_eq!(who(&library), [(library.clone(), By::Everybody)]);
        chmod(&library, 0o644);
        chmod(folder.path(), 0o777);
        assert_eq!(who(&library), [(folder.path().to_owned(), By::Everybody)]);
        chmod(&plugins, 0o777);
        assert_eq!(exposed([library.as_path(), library.as_path()]).len(), 2);
        chmod(folder.path(), 0o700);
        chmod(&plugins, 0o1777);
        assert_eq!(who(&library), []);
        let open: Vec<By> = open_folder(&plugins).into_iter().map(|exposed| exposed.by).collect();
        assert_eq!(open, [By::Everybody]);
    }

    #[test]
    fn the_way_goes_through_links() {
        let (folder, plugins, library) = private();
        let (aside, link) = (folder.path().join("aside"), folder.path().join("liblink.so"));
        std::fs::create_dir(&aside).unwrap();
        chmod(&aside, 0o755);
        symlink("../plugins/libmine.so", aside.join("libstep.so")).unwrap();
        symlink("aside/libstep.so", &link).unwrap();
        assert_eq!(who(&link), []);
        assert_eq!(link_target(&link), Some(library.canonicalize().unwrap()));
        assert_eq!(link_target(&library), None);
        chmod(&aside, 0o777);
        assert_eq!(who(&link), [(aside.clone(), By::Everybody)]);
        chmod(&aside, 0o755);
        chmod(&plugins, 0o777);
        assert_eq!(who(&link), [(plugins, By::Everybody)]);
        // One that leads to itself ends, too.
        let endless = folder.path().join("endless.so");
        symlink("endless.so", &endless).unwrap();
        assert_eq!(who(&endless), []);
    }

    #[test]
    fn groups_and_owners_count_unless_they_are_the_users_own() {
        if !rustix::process::geteuid().is_root() {
            // Only root gives files away.
            return;
        }
        let (_folder, _, library) = private();
        let give = |user: u32, group: u32| std::os::unix::fs::chown(&library, Some(user), Some(group)).unwrap();
        chmod(&library, 0o664);
        assert_eq!(who(&library), []);
        give(0, 1234);
        assert_eq!(who(&library), [(library.clone(), By::Group(1234))]);
        give(1234, 0);
        assert_eq!(who(&library), [(library.clone(), By::Owner(1234))]);
    }
}
