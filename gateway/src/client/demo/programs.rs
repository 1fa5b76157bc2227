//! The programs of others that are shown, as they are found on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Debug)]
pub struct Programs {
    pub redis: Option<PathBuf>,
    pub nginx: Option<PathBuf>,
    path: String,
}

impl Programs {
    /// Those on this PATH. Beside each bin there may be an sbin, where Debian keeps nginx, and which only root looks at.
    pub fn on(path: &str) -> Self {
        let folders: Vec<_> = env::split_paths(path)
            .flat_map(|folder| {
                let beside = folder.ends_with("bin").then(|| folder.with_file_name("sbin"));
                std::iter::once(folder).chain(beside)
            })
            .filter(|folder| folder.is_absolute())
            .collect();
        let find = |names: &[&str]| {
            let places = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
            places.into_iter().find(|place| place.is_file())
        };
        Self { redis: find(&["redis-server", "valkey-server"]), nginx: find(&["nginx"]), path: path.to_owned() }
    }

    /// What is missing, with the one command that brings it.
    pub fn missing(&self) -> Option<String> {
        let (names, packages) = match (&self.redis, &self.nginx) {
            (Some(_), Some(_)) => return None,
            (None, Some(_)) => ("Redis", "redis-server"),
            (Some(_), None) => ("nginx", "nginx"),
            (None, None) => ("Redis and nginx", "redis-server nginx"),
        };
        Some(format!(
            "{names} cannot be found on the PATH; this installs what is missing: sudo apt-get install {packages}"
        ))
    }

    /// How whoever reads this calls this very program.
    pub fn own_name(&self, exe: &Path) -> String {
        let found = env::split_paths(&self.path).map(|folder| folder.join("holdfast")).find(|place| place.is_file());
        let is_this = found.and_then(|found| found.canonicalize().ok()).is_some_and(|found| found == exe);
        if is_this { "holdfast".to_owned() } else { exe.display().to_string() }
    }
}

/// What a program says of its version, in one word.
pub fn version(program: &Path) -> String {
    let said = Command::new(program).arg("-v").output();
    let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut words = said.split([' ', '/', '=', '\n']);
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_command() {
        let nothing = Programs::on("");
        assert!(nothing.missing().unwrap().contains("sudo apt-get install redis-server nginx"));
        let some = Programs { redis: Some("/r".into()), ..nothing };
        assert!(some.missing().unwrap().ends_with("sudo apt-get install nginx"));
        assert_eq!(Programs { nginx: Some("/n".into()), ..some }.missing(), None);
    }
}
