//! A control group with a memory limit, for one process.

use crate::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// A group that is removed with this value.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    limit: &'static str,
}

impl Group {
    /// Fails, with the reason, where this process may not make groups.
    pub(super) fn new() -> Result<Self> {
        let name = format!("weir-bench-{}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ];
        for (root, limit) in versions {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_ok() {
                if folder.join(limit).exists() {
                    return Ok(Self { folder, limit });
                }
                fs::remove_dir(&folder)?;
            }
        }
        Err("no control group with a memory limit can be made here".into())
    }

    /// The file that takes the id of a process.
    pub(super) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    pub(super) fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.folder.join(self.limit), bytes.to_string())?;
        // Swap would hide that the limit is passed.
        let _ = fs::write(self.folder.join("memory.swappiness"), "0");
        let _ = fs::write(self.folder.join("memory.swap.max"), "0");
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group can be removed once its last process is gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
