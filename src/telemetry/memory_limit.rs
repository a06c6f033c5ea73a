//! The memory limit of this process, and its source.
//!
//! Every control group from the process' own up to the root may have a limit, and the least of them counts, or the
//! memory of the machine. Where a group lies follows from `/proc/self/cgroup`, which names the group in each hierarchy,
//! and `/proc/self/mountinfo`, which says where a hierarchy is mounted and from which group on: systemd's units, and
//! containers with and without a namespace of their own. Both versions of control groups are read.

use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use crate::base::units;

/// A limit, in bytes, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes that the process may use.
    pub bytes: u64,
    /// The file of the control group that says so; `None` is the memory of the machine.
    pub group: Option<PathBuf>,
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(file) => write!(f, "{} ({})", units::bytes(self.bytes), file.display()),
            None => write!(f, "{} (the memory of the machine)", units::bytes(self.bytes)),
        }
    }
}

/// The limit of this process; `None` where nobody says.
pub fn memory_limit() -> Option<MemoryLimit> {
    memory_limit_under(Path::new("/"))
}

/// The same for a process whose `/proc` and control groups are below `root`.
pub fn memory_limit_under(root: &Path) -> Option<MemoryLimit> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut least = machine(&read("proc/meminfo"));
    for mount in mounts.lines().filter_map(Mount::of) {
        let Some(group) = groups.lines().find_map(|line| mount.group(line)) else { continue };
        for folder in mount.folders(group) {
            let file = folder.join(mount.version.file());
            let below = root.join(file.strip_prefix("/").unwrap_or(&file));
            let limit = fs::read_to_string(below).ok().and_then(|text| text.trim().parse().ok());
            // An unlimited group says `max`, or a number far above any machine's memory.
            if let Some(bytes) = limit.filter(|bytes| *bytes > 0)
                && least.as_ref().is_none_or(|least| bytes < least.bytes)
            {
                least = Some(MemoryLimit { bytes, group: Some(file) });
            }
        }
    }
    least
}

fn machine(meminfo: &str) -> Option<MemoryLimit> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(MemoryLimit { bytes: kib.saturating_mul(1_024), group: None })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }
}

/// A mounted hierarchy of control groups.
struct Mount<'m> {
    version: Version,
    /// The group that is mounted.
    from: &'m Path,
    /// Where.
    at: &'m Path,
}

impl<'m> Mount<'m> {
    /// From a line of `mountinfo`, if it is a hierarchy that knows of memory.
    fn of(line: &'m str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (from, at) = (Path::new(before.next()?), Path::new(before.next()?));
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if after.next_back()?.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Self { version, from, at })
    }

    /// The process' group in this hierarchy, from a line of `/proc/self/cgroup`: `4:memory:/a/b`, or `0::/a/b` of
    /// version 2.
    fn group<'g>(&self, line: &'g str) -> Option<&'g Path> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let own = match self.version {
            Version::One => controllers.split(',').any(|name| name == "memory"),
            Version::Two => number == "0" && controllers.is_empty(),
        };
        own.then_some(Path::new(group))
    }

    /// The folders of a group and of all above it that are mounted.
    fn folders(&self, group: &Path) -> Vec<PathBuf> {
        // A group outside of the mounts cannot be seen from here; the mounted part is above it or beside it.
        let inside = group.strip_prefix(self.from).unwrap_or(Path::new(""));
        let climbs = inside.components().any(|part| !matches!(part, Component::Normal(_)));
        let inside = if climbs { Path::new("") } else { inside };
        inside.ancestors().map(|above| self.at.join(above)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

    /// A tree of files, and the limit in it.
    fn limit(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> Option<(u64, Option<String>)> {
        let root = tempfile::tempdir().unwrap();
        let always = [
            ("proc/self/cgroup", cgroup),
            ("proc/self/mountinfo", mountinfo),
            ("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n"),
        ];
        for (path, text) in always.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = memory_limit_under(root.path())?;
        Some((limit.bytes, limit.group.map(|file| file.display().to_string())))
    }

    #[allow(clippy::unnecessary_wraps, reason = "it is compared with an option")]
    fn found(bytes: u64, file: &str) -> Option<(u64, Option<String>)> {
        Some((bytes, Some(file.to_owned())))
    }

    #[test]
    fn without_a_group_it_is_the_machine() {
        assert_eq!(limit("", "", &[]), Some((16_384_000 << 10, None)));
        assert_eq!(limit("0::/\n", V2, &[]), Some((16_384_000 << 10, None)));
        let unlimited = [("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(limit("4:memory:/\n", V1, &unlimited), Some((16_384_000 << 10, None)));
        let unlimited = [("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(limit("0::/a\n", V2, &unlimited), Some((16_384_000 << 10, None)));
    }

    #[test]
    fn the_least_of_all_levels_counts() {
        let own = "sys/fs/cgroup/system.slice/weir.service/memory.max";
        let above = "sys/fs/cgroup/system.slice/memory.max";
        let group = "0::/system.slice/weir.service\n";
        let memory_max = [(own, "536870912\n"), (above, "max\n")];
        assert_eq!(limit(group, V2, &memory_max), found(512 * MIB, &format!("/{own}")));
        let slice = [(own, "536870912\n"), (above, "268435456\n")];
        assert_eq!(limit(group, V2, &slice), found(256 * MIB, &format!("/{above}")));
        let own = "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes";
        let above = "sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        let files = [(own, "9223372036854771712\n"), (above, "134217728\n")];
        assert_eq!(
            limit("5:cpu:/a\n4:memory:/a/b\n0::/\n", V1, &files),
            found(128 * MIB, &format!("/{above}"))
        );
    }

    #[test]
    fn containers_with_and_without_a_namespace_are_read() {
        // With one, the container's own group is the root.
        let own = [("sys/fs/cgroup/memory.max", "134217728\n")];
        assert_eq!(limit("0::/\n", V2, &own), found(128 * MIB, "/sys/fs/cgroup/memory.max"));
        // Without one, version 1 mounts the container's group alone, and the path is that of the host.
        let mounted = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let own = [("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n")];
        let file = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(limit("4:memory:/docker/abc\n", mounted, &own), found(128 * MIB, file));
        // Without one, version 2 shows the whole of the host's hierarchy.
        let file = "sys/fs/cgroup/system.slice/docker-abc.scope/memory.max";
        let group = "0::/system.slice/docker-abc.scope\n";
        assert_eq!(limit(group, V2, &[(file, "134217728\n")]), found(128 * MIB, &format!("/{file}")));
        // A process that was moved out of its namespace's view.
        let own = [("sys/fs/cgroup/memory.max", "134217728\n")];
        assert_eq!(limit("0::/../other\n", V2, &own), found(128 * MIB, "/sys/fs/cgroup/memory.max"));
    }

    #[test]
    fn both_versions_at_once_are_read() {
        let both = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let files = [
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/unified/y/memory.max", "134217728\n"),
        ];
        assert_eq!(
            limit("4:memory:/x\n0::/y\n", &both, &files),
            found(128 * MIB, "/sys/fs/cgroup/unified/y/memory.max")
        );
    }
}
