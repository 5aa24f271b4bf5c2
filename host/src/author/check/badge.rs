//! What a README shows of a check.

use host_command::arguments::Tier;
use plugin_api::abi;

/// The version of this host.
pub(super) const HOST: &str = env!("CARGO_PKG_VERSION");

/// This host's version of the plugin ABI.
pub(super) fn abi() -> String {
    format!("{}.{}", abi::MAJOR, abi::MINOR)
}

/// A line of Markdown that says the tier, the ABI and the host: as an image of shields.io and, where images are not shown, as
/// its text.
pub(super) fn badge(tier: Option<Tier>) -> String {
    let (tier, color) = match tier {
        Some(Tier::Full) => ("full", "brightgreen"),
        Some(Tier::Basic) => ("basic", "yellow"),
        None => ("fails", "red"),
    };
    let abi = abi();
    // In the path of a static badge, `--` stands for `-` and `_` for a space.
    let escaped = |text: &str| text.replace('-', "--").replace('_', "__").replace(' ', "_").replace('+', "%2B");
    let message = escaped(&format!("{tier} | ABI {abi} | host {HOST}")).replace('|', "%7C");
    format!(
        "![host plugins check: {tier}, ABI {abi}, host {HOST}](https://img.shields.io/badge/host_plugin-{message}-{color})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_is_a_line_with_everything_in_its_text() {
        for (tier, word) in [(Some(Tier::Full), "full"), (Some(Tier::Basic), "basic"), (None, "fails")] {
            let line = badge(tier);
            assert!(
                line.starts_with(&format!("![host plugins check: {word}, ABI {}, host {HOST}](https://", abi())),
                "{line}"
            );
            assert!(!line.contains('\n') && line.matches(' ').count() == 7, "{line}");
        }
    }
}
