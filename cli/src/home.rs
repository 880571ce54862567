//! Where Otto keeps what it installs and, unless told otherwise, its data.

use std::path::PathBuf;

use anyhow::Context as _;
use service::{env, settings::Settings};

/// The folder of `otto up` in Otto's home.
const UP: &str = "up";

/// Otto's home: `$OTTO_HOME`, else `$XDG_DATA_HOME/otto`, else `~/.local/share/otto`. It need not exist yet.
pub fn folder() -> anyhow::Result<PathBuf> {
    from_settings(&mut Settings::from_environment())
}

/// Where `otto up` keeps its data unless told otherwise.
pub fn up_folder() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join(UP))
}

fn from_settings(settings: &mut Settings) -> anyhow::Result<PathBuf> {
    let home = settings
        .optional::<PathBuf>(env::HOME)
        .or_else(|| Some(settings.optional::<PathBuf>("XDG_DATA_HOME")?.join("otto")))
        .or_else(|| Some(settings.optional::<PathBuf>("HOME")?.join(".local/share/otto")))
        .with_context(|| format!("neither {} nor HOME is set: there is no place for what Otto keeps", env::HOME))?;
    std::path::absolute(&home).with_context(|| format!("{} is no path", home.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(values: &[(&str, &str)]) -> Option<PathBuf> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        from_settings(&mut Settings::new(values)).ok()
    }

    #[test]
    fn the_most_special_name_wins() {
        let all = [("HOME", "/h"), ("XDG_DATA_HOME", "/x"), ("OTTO_HOME", "/o")];
        assert_eq!(home(&all), Some("/o".into()));
        assert_eq!(home(&all[..2]), Some("/x/otto".into()));
        assert_eq!(home(&all[..1]), Some("/h/.local/share/otto".into()));
        assert_eq!(home(&[("HOME", "")]), None);
    }
}
