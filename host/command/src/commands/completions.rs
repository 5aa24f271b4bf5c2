//! `host completions` and `host man`, made from the definition of the command line.

use std::process::ExitCode;

use clap::CommandFactory;

use super::output::{cannot, print_data};
use crate::arguments::{Arguments, Shell};
use crate::report::Problems;

pub(super) fn completions(shell: Shell) -> Result<ExitCode, Problems> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Elvish => clap_complete::Shell::Elvish,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
        Shell::Zsh => clap_complete::Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "host", &mut script);
    print_data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// One page for all commands: each has a part of its own after the first.
pub(super) fn man() -> Result<ExitCode, Problems> {
    let mut command = Arguments::command();
    // Gives each command its whole name, `host run`.
    command.build();
    let mut page = Vec::new();
    write(&command, true, &mut page).map_err(|error| cannot("write the man page", &error))?;
    print_data(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}

fn write(command: &clap::Command, is_first: bool, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    if is_first {
        man.render(page)?;
    } else {
        page.extend(
            format!(
                ".SH {}\n",
                command.get_display_name().unwrap_or(command.get_name()).replace('-', " ").to_uppercase()
            )
            .bytes(),
        );
        man.render_description_section(page)?;
        man.render_synopsis_section(page)?;
        if command.get_arguments().next().is_some() {
            man.render_options_section(page)?;
        }
    }
    for subcommand in
        command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help")
    {
        write(subcommand, false, page)?;
    }
    Ok(())
}
