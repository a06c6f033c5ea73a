//! Fuzz targets of Weir. `cargo fuzz run <target>` in this folder's parent; the seeds are in `seeds`.

pub mod targets;

/// Runs the target of this name.
pub fn run(name: &str, input: &[u8]) {
    for target in targets::TARGETS.iter().filter(|target| target.name == name) {
        (target.run)(input);
    }
}
