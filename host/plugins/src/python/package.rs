//! The package `host_plugin` for processes of Python: this host's own, so that both sides speak one protocol.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

macro_rules! files {
    ($($name:literal,)*) => {
        /// The package's files, from the folder that Python is started with.
        const FILES: &[(&str, &str)] = &[
            ("__main__.py", include_str!("start.py")),
            $((concat!("host_plugin/", $name), include_str!(concat!("../../../../plugins/python/host_plugin/", $name))),)*
        ];
    };
}

files! {
    "__init__.py",
    "__main__.py",
    "_channel.py",
    "_child.py",
    "_dlpack.py",
    "_locked.py",
    "_messagepack.py",
    "_options.py",
    "_services.py",
    "adapters/__init__.py",
    "adapters/_base.py",
    "adapters/keras.py",
    "adapters/lightning.py",
    "adapters/tensorpack.py",
    "adapters/transformers.py",
    "callback.py",
    "errors.py",
    "events.py",
    "run.py",
    "tensors.py",
    "testing.py",
    "values.py",
}

/// The package's files for a folder in which a plugin is tested, by their paths there.
pub fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied().filter(|(name, _)| name.starts_with("host_plugin/")).chain([("host_plugin/py.typed", "")])
}

/// The package in a folder that only this user can write, which is removed with the last one that uses it.
#[derive(Clone, Debug)]
pub(crate) struct Package(Arc<TempDir>);

impl Package {
    /// Writes it.
    pub(super) fn write() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("host-python-").tempdir()?;
        for (name, text) in FILES {
            let path = folder.path().join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        Ok(Self(Arc::new(folder)))
    }

    /// Its folder, which Python runs.
    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use plugin_api::abi::kinds::{EventKind, ServiceKind};
    use plugin_api::services::{Background, HookSet, Hooks};

    use super::*;

    fn text_of(name: &str) -> &'static str {
        FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text).unwrap()
    }

    #[test]
    fn every_file_of_the_package_is_embedded() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/python");
        let mut folders = vec![package.join("host_plugin")];
        let mut there = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "py") {
                    there.insert(path.strip_prefix(&package).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let embedded: BTreeSet<String> = FILES[1..].iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(embedded, there);
    }

    /// The line of a service in the package's table.
    fn line_of(service: ServiceKind) -> String {
        let rule = service.rule().unwrap();
        let hooks = match rule.hooks {
            Hooks::In(HookSet::ALWAYS) => "\"always\"".to_owned(),
            Hooks::In(HookSet::ANY) => "\"any\"".to_owned(),
            Hooks::In(HookSet::IDLE) => "\"idle\"".to_owned(),
            Hooks::ByContent => "\"content\"".to_owned(),
            Hooks::In(set) => {
                let hooks = EventKind::ALL.iter().filter(|event| set.contains(**event));
                let names: Vec<String> = hooks.map(|event| format!("\"{}\"", event.name())).collect();
                format!("({}{})", names.join(", "), if names.len() == 1 { "," } else { "" })
            }
        };
        let background = match rule.background {
            Background::Direct => "direct",
            Background::Snapshot => "snapshot",
            Background::Later => "later",
            Background::Never => "never",
        };
        let remote = if rule.remote { "True" } else { "False" };
        format!("    \"{}\": Service({}, {hooks}, \"{background}\", {remote}),", rule.name, service.0)
    }

    #[test]
    fn its_table_of_services_is_ours() {
        let lines: BTreeSet<&str> =
            text_of("host_plugin/_services.py").lines().filter(|line| line.contains("Service(")).collect();
        let ours: Vec<String> = ServiceKind::ALL.iter().map(|service| line_of(*service)).collect();
        let theirs: Vec<&str> = lines.into_iter().filter(|line| line.starts_with("    \"")).collect();
        for line in &ours {
            assert!(theirs.contains(&line.as_str()), "{line}");
        }
        assert_eq!(ours.len(), theirs.len());
    }

    #[test]
    fn its_events_and_their_hooks_are_ours() {
        let (events, callback) = (text_of("host_plugin/events.py"), text_of("host_plugin/callback.py"));
        for event in EventKind::ALL {
            assert!(events.contains(&format!("    \"{}\": {},\n", event.name(), event.0)), "{}", event.name());
            let method = match *event {
                EventKind::LOAD_STATE | EventKind::SAVE_STATE => event.name().to_owned(),
                _ => format!("on_{}", event.name()),
            };
            assert!(callback.contains(&format!("    def {method}(self")), "{method}");
        }
        let busy: Vec<&str> =
            EventKind::ALL.iter().filter(|event| !HookSet::IDLE.contains(**event)).map(|event| event.name()).collect();
        let table = text_of("host_plugin/_services.py");
        let (_, rest) = table.split_once("BUSY: FrozenSet[str] = frozenset(").unwrap();
        let (listed, _) = rest.split_once("\n    )\n)").unwrap();
        for name in &busy {
            assert!(listed.contains(&format!("\"{name}\"")), "{name}");
        }
        assert_eq!(listed.matches('"').count(), 2 * busy.len());
    }
}
