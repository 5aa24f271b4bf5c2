//! Options of `wandb`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, plugin};

/// The longest name of a project that W&B accepts, in characters, and what it may not contain.
const LONGEST_PROJECT: usize = 128;
const NOT_IN_A_PROJECT: &[char] = &['/', '\\', '#', '?', '%', ':'];

/// Options of `wandb`.
#[plugin]
pub struct Options {
    /// The project; if not given, the run's name.
    pub project: Option<String>,
    /// The user or team that the project belongs to; if not given, that of whoever uploads it.
    pub entity: Option<String>,
    /// The name of the run in W&B; if not given, the name of its folder.
    pub run_name: Option<String>,
    /// The group that W&B shows the run in.
    pub group: Option<String>,
    /// Tags of the run.
    pub tags: Vec<String>,
    /// A description of the run.
    pub notes: Option<String>,
    /// The folder of the offline runs, relative to the run folder.
    #[schemars(extend("format" = "output-folder"))]
    pub folder: String,
    /// The most seconds that values wait to be written together; 0 for none.
    #[schemars(range(min = 0.0))]
    pub flush: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            project: None,
            entity: None,
            run_name: None,
            group: None,
            tags: Vec::new(),
            notes: None,
            folder: "wandb".to_owned(),
            flush: 10.0,
        }
    }
}

impl Options {
    /// Rules that a JSON Schema cannot express.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(project) = &self.project {
            if project.is_empty() {
                return Err(Error::new("`project` is empty: name one, or leave it out for the run's name"));
            }
            if let Some(letter) = project.chars().find(|letter| is_not_in_a_project(*letter)) {
                return Err(Error::new(format!(
                    "`project` contains {letter:?}, which W&B accepts in no project's name: use letters, digits, `-` and `_`"
                )));
            }
            let length = project.chars().count();
            if length > LONGEST_PROJECT {
                return Err(Error::new(format!(
                    "`project` has {length} characters, and W&B accepts at most {LONGEST_PROJECT}: shorten it"
                )));
            }
        }
        self.flush_every().map(drop)
    }

    pub(crate) fn flush_every(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.flush).map_err(|error| Error::from(error).context("`flush`"))
    }

    /// The project, from the run's name if none is given.
    pub(crate) fn project(&self, info: &RunInfo) -> String {
        let given = self.project.clone().filter(|project| !project.is_empty());
        let project = given.unwrap_or_else(|| {
            let safe = |letter| if is_not_in_a_project(letter) { '_' } else { letter };
            info.name.chars().map(safe).take(LONGEST_PROJECT).collect()
        });
        // W&B's own name for runs without a project.
        if project.is_empty() { "uncategorized".to_owned() } else { project }
    }

    /// The folder of the offline runs. A trial writes only to its own folder.
    pub(crate) fn folder(&self, info: &RunInfo) -> PathBuf {
        Path::new(&info.folder).join(if info.trial { "wandb" } else { self.folder.as_str() })
    }
}

fn is_not_in_a_project(letter: char) -> bool {
    letter.is_control() || NOT_IN_A_PROJECT.contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_the_server_would_refuse_is_refused() {
        let check = |project: &str| Options { project: Some(project.to_owned()), ..Options::default() }.check();
        check("small digits").unwrap();
        for (project, expected) in [
            ("", "`project` is empty"),
            ("a/b", "`project` contains '/', which W&B accepts in no project's name"),
            (&"a".repeat(129), "`project` has 129 characters, and W&B accepts at most 128"),
        ] {
            let told = check(project).unwrap_err().message().to_owned();
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn the_runs_name_becomes_a_project() {
        let project = |name: &str| Options::default().project(&RunInfo { name: name.to_owned(), ..RunInfo::default() });
        assert_eq!((project("a/b c").as_str(), project("").as_str()), ("a_b c", "uncategorized"));
    }
}
