//! `host plugins package | add | remove | update | index`.

use std::io::Write;
use std::process::ExitCode;

use host_command::arguments::{
    AddOptions, IndexOptions, Origin, PackageOptions, PluginsPlace, RemoveOptions, UpdateOptions,
};

use super::output::cannot_write;
use crate::plugins::package::{self, Added, Change, Folder, How, Index, Keys, PackageError, Signed};
use crate::plugins::{Catalogue, trust};
use crate::report::{Problem, Problems, Style, did_you_mean, render};

/// The environment variable that names the index.
const INDEX: &str = "HOST_INDEX";

/// Packs a library.
///
/// # Errors
///
/// A library that cannot be loaded or packed; a folder that cannot be written.
pub(super) fn package(
    options: &PackageOptions,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let catalogue = Catalogue::open(std::slice::from_ref(&options.file)).map_err(|error| Problem::from(&error))?;
    write!(warnings, "{}", render(&catalogue.exposures(), Style::of_stderr())).map_err(cannot_write)?;
    let kinds: Vec<_> = catalogue.kinds().iter().map(|kind| kind.descriptor().clone()).collect();
    let build = catalogue.kinds().first().map(|kind| kind.build()).unwrap_or_default();
    let texts = package::texts_in(&options.project).map_err(told)?;
    let written = package::write(&options.file, &kinds, build, options.name.as_deref(), &texts, &options.out);
    let written = written.map_err(told)?;
    let mut missing = Vec::new();
    for (what, is_there) in [
        ("`README`", texts.iter().any(package::Text::is_readme)),
        ("`LICENSE`", texts.iter().any(package::Text::is_license)),
    ] {
        if !is_there {
            let problem = Problem::new(format!("the package has no {what}"));
            missing
                .push(problem.with_hint("write one, or name the folder that has it with `--project DIR`".to_owned()));
        }
    }
    write!(warnings, "{}", render(&missing, Style::of_stderr())).map_err(cannot_write)?;
    let names: Vec<&str> = texts.iter().map(|text| text.name.as_str()).collect();
    let with = if names.is_empty() { String::new() } else { format!(", with {}", names.join(", ")) };
    writeln!(out, "{}", written.path.display()).map_err(cannot_write)?;
    let manifest = &written.manifest;
    let about = format!("`{}` {} for {}{with}", manifest.name, manifest.version, manifest.target);
    writeln!(warnings, "{about}\n{} bytes, SHA-256 {}", written.size, written.sha256).map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

/// Adds a package to the folder and the lock.
///
/// # Errors
///
/// Whatever is wrong with it.
pub(super) fn add(options: &AddOptions, out: &mut dyn Write, warnings: &mut dyn Write) -> Result<ExitCode, Problems> {
    let how = how(&options.origin, options.downgrade)?;
    let added = open(&options.place, warnings)?.add(&options.package, &how).map_err(told)?;
    tell(&added, &options.place, out).map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes a package from the folder and the lock.
///
/// # Errors
///
/// When there is none.
pub(super) fn remove(
    options: &RemoveOptions,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let removed = open(&options.place, warnings)?.remove(&options.name).map_err(told)?;
    let package = removed.locked.package.map(|package| format!("`{}` {}", package.name, package.version));
    let file = options.place.folder.join(&removed.locked.file);
    write!(out, "removed {}, `{}`", package.unwrap_or_default(), file.display()).map_err(cannot_write)?;
    if !removed.other_targets.is_empty() {
        write!(out, "; from the lock also for {}", removed.other_targets.join(", ")).map_err(cannot_write)?;
    }
    writeln!(out).map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

/// Updates packages to the newest versions of the index.
///
/// # Errors
///
/// No index; a package that is not there; one that cannot be updated, after the others were.
pub(super) fn update(
    options: &UpdateOptions,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<ExitCode, Problems> {
    let how = how(&options.origin, false)?;
    let folder = open(&options.place, warnings)?;
    let mut packages = folder.packages().map_err(told)?;
    if let Some(name) = &options.name {
        let names: Vec<String> = packages.iter().map(|package| package.name.clone()).collect();
        packages.retain(|package| package.name == *name);
        if packages.is_empty() {
            let problem =
                Problem::new(format!("no package `{name}` is in the lock `{}`", options.place.lock.display()));
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            return Err(problem.with_hint(hint.unwrap_or_else(|| format!("add it: `host plugins add {name}`"))).into());
        }
    }
    let Some(index) = &how.index else {
        let name = options.name.clone().or_else(|| packages.first().map(|package| package.name.clone()));
        return Err(told(PackageError::NoIndex { name: name.unwrap_or_default() }));
    };
    let mut problems = Vec::new();
    for package in packages {
        let newest = index.find(&package.name, None).map(|(release, _)| release.version);
        match newest {
            Ok(version) if version.to_string() == package.version => {
                writeln!(out, "`{}` {} is the newest", package.name, package.version).map_err(cannot_write)?;
            }
            Ok(_) => match folder.add(&package.name, &how) {
                Ok(added) => tell(&added, &options.place, out).map_err(cannot_write)?,
                Err(PackageError::Older { found, installed, .. }) => {
                    writeln!(out, "`{}` {installed} is newer than {found}, the newest of the index", package.name)
                        .map_err(cannot_write)?;
                }
                Err(error) => problems.push(Problem::from(&error)),
            },
            Err(error) => problems.push(Problem::from(&error)),
        }
    }
    if problems.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Problems(problems)) }
}

/// Makes a folder of packages an index.
///
/// # Errors
///
/// A file that is no package; a folder that cannot be written.
pub(super) fn index(options: &IndexOptions, out: &mut dyn Write) -> Result<ExitCode, Problems> {
    let names = package::write_index(&options.folder).map_err(told)?;
    let plural = if names.len() == 1 { "package" } else { "packages" };
    writeln!(out, "`{}`: {} {plural}: {}", options.folder.display(), names.len(), names.join(", "))
        .map_err(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}

fn told(error: PackageError) -> Problems {
    Problem::from(&error).into()
}

fn how(origin: &Origin, downgrade: bool) -> Result<How, Problems> {
    let named = origin.index.clone().or_else(|| std::env::var(INDEX).ok().filter(|index| !index.is_empty()));
    let index = named.map(|named| Index::parse(&named)).transpose().map_err(told)?;
    Ok(How { index, keys: Keys::of_user(), require_signed: origin.require_signed, downgrade })
}

/// Opens the folder for changes, and warns of those that others can make.
fn open(place: &PluginsPlace, warnings: &mut dyn Write) -> Result<Folder, Problems> {
    let folder = Folder::open(&place.folder, &place.lock).map_err(told)?;
    let exposed: Vec<Problem> = trust::open_folder(&place.folder).iter().map(Problem::from).collect();
    write!(warnings, "{}", render(&exposed, Style::of_stderr())).map_err(cannot_write)?;
    Ok(folder)
}

fn tell(added: &Added, place: &PluginsPlace, out: &mut dyn Write) -> std::io::Result<()> {
    let manifest = &added.manifest;
    let what = match &added.change {
        Change::New => "added".to_owned(),
        Change::Replaced(version) if *version == manifest.version => "replaced".to_owned(),
        Change::Replaced(version) => format!("updated from {version}:"),
        Change::None => "was there already:".to_owned(),
    };
    let signed = match &added.signed {
        Signed::By(key) => format!("signed with the key `{key}`"),
        Signed::ByUnknown => "signed with a key that you do not have".to_owned(),
        Signed::Not => "not signed".to_owned(),
    };
    let file = place.folder.join(&manifest.library);
    writeln!(out, "{what} `{}` {}, `{}`, {signed}", manifest.name, manifest.version, file.display())?;
    if added.change == Change::New {
        let kinds: Vec<&str> = manifest.kinds.iter().map(|kind| kind.kind.as_str()).collect();
        writeln!(out, "kinds: {}", kinds.join(", "))?;
    }
    Ok(())
}
