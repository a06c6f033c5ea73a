//! Circles of imports: a file is read together with its imports, so a circle has to be read as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
};

use regex::Regex;

use super::{name_of, root, sources};

/// The most files of a circle, all of one folder.
const CIRCLE_MAX: usize = 3;

type Path = Vec<String>;

static USE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);"));
static PATH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\w+(?:::\w+)+"));
static UNSEEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"//[^\n]*|pub\(in [^)]*\)"));
static TEST_MODULE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"#\[cfg\([^\]]*test[^\]]*\)\]\s*(?:pub(?:\([^)]*\))? )?mod (\w+)(;| \{)"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// An item of a `use`: its path, its name here, and whether it is a re-export.
struct Import {
    path: Path,
    name: String,
    public: bool,
}

struct Module {
    file: String,
    imports: Vec<Import>,
    /// Paths in its code, beside those in `use`.
    paths: Vec<Path>,
}

struct Crate(BTreeMap<Path, Module>);

impl Crate {
    fn read() -> Self {
        let mut texts = BTreeMap::new();
        for file in sources("src") {
            let inner = file.strip_prefix(root().join("src")).unwrap().with_extension("");
            let mut module: Path =
                inner.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
            module.pop_if(|last| last == "mod" || last == "lib");
            texts.insert(module, (name_of(&file), fs::read_to_string(&file).unwrap()));
        }
        let mut tests = BTreeSet::new();
        for (module, (_, text)) in &mut texts {
            for found in TEST_MODULE.captures_iter(text) {
                tests.insert([module.as_slice(), &[found[1].to_owned()]].concat());
            }
            let inline = TEST_MODULE.captures_iter(text).find(|found| &found[2] == " {");
            if let Some(at) = inline.map(|found| found.get(0).unwrap().start()) {
                text.truncate(at);
            }
        }
        let is_test = |module: &Path| (1..=module.len()).any(|n| tests.contains(&module[..n]));
        texts.retain(|module, _| !is_test(module));
        Self(texts.into_iter().map(|(module, (file, text))| (module, Module::of(file, &text))).collect())
    }

    /// A path as seen from a module, from the root of the crate on; `None` is another crate.
    fn absolute(&self, from: &[String], path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([from, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                Some([&from[..from.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            _ => {
                let inner = [from, path].concat();
                self.0.contains_key(&inner[..=from.len()]).then_some(inner)
            }
        }
    }

    /// The module that defines an item, through re-exports.
    fn home(&self, path: &[String], seen: &mut BTreeSet<Path>) -> Option<Path> {
        let known = (0..=path.len()).rev().find(|n| self.0.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(known);
        let reexport = rest.first().and_then(|name| {
            let import = self.0[module].imports.iter().find(|import| import.name == *name)?;
            let target = self.absolute(module, &import.path)?;
            seen.insert(path.to_vec()).then(|| self.home(&[target.as_slice(), &rest[1..]].concat(), seen))?
        });
        reexport.or_else(|| Some(module.to_vec()))
    }

    /// The modules whose items a module uses; the root of the crate is none.
    fn uses(&self, module: &Path) -> BTreeSet<Path> {
        let Module { imports, paths, .. } = &self.0[module];
        let through_name = |path: &Path| {
            let import = imports.iter().find(|import| import.name == path[0])?;
            let target = self.absolute(module, &import.path)?;
            self.0.contains_key(&target).then(|| [target.as_slice(), &path[1..]].concat())
        };
        let own = imports.iter().filter(|import| !import.public).map(|import| &import.path);
        let absolute = own.filter_map(|path| self.absolute(module, path)).chain(
            paths.iter().filter_map(|path| self.absolute(module, path).or_else(|| through_name(path))),
        );
        let homes = absolute.filter_map(|path| self.home(&path, &mut BTreeSet::new()));
        homes.filter(|home| home != module && !home.is_empty()).collect()
    }

    /// Sets of files that reach each other.
    fn circles(&self) -> Vec<Vec<&str>> {
        let uses: BTreeMap<_, _> = self.0.keys().map(|module| (module, self.uses(module))).collect();
        let reach = |from: &Path| {
            let (mut reached, mut queue) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = queue.pop() {
                queue.extend(uses[&next].iter().filter(|to| reached.insert((*to).clone())).cloned());
            }
            reached
        };
        let reached: BTreeMap<_, _> = self.0.keys().map(|module| (module, reach(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in reached.iter().filter(|(module, others)| others.contains(**module)) {
            let back = others.iter().filter(|other| reached[other].contains(*module));
            circles.insert(back.map(|other| self.0[other].file.as_str()).collect());
        }
        circles.into_iter().collect()
    }
}

impl Module {
    fn of(file: String, text: &str) -> Self {
        let text = UNSEEN.replace_all(
            text,
            |found: &regex::Captures<'_>| {
                if found[0].starts_with("pub") { "pub" } else { "" }
            },
        );
        let mut imports = Vec::new();
        for found in USE.captures_iter(&text) {
            let public = found.get(1).is_some();
            let tree: String = found[2].split_whitespace().collect::<Vec<_>>().join(" ");
            expand(&tree, &[], &mut |path, name| imports.push(Import { path, name, public }));
        }
        let code = USE.replace_all(&text, "");
        let paths = PATH.find_iter(&code).map(|path| path.as_str().split("::").map(str::to_owned).collect());
        Self { file, imports, paths: paths.collect() }
    }
}

/// Each item of the tree of a `use`.
fn expand(tree: &str, before: &[String], found: &mut impl FnMut(Path, String)) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&group[start..i], before, found);
                    start = i + 1;
                }
                _ => {}
            }
        }
    } else if let Some((first, rest)) = tree.split_once("::").filter(|(first, _)| !first.contains('{')) {
        expand(rest, &[before, &[first.trim().to_owned()]].concat(), found);
    } else if !tree.is_empty() {
        let (item, name) = tree.split_once(" as ").unwrap_or((tree, tree));
        found([before, &[item.trim().to_owned()]].concat(), name.trim().to_owned());
    }
}

#[test]
fn imports_make_no_large_circles() {
    let sources = Crate::read();
    let folder = |file: &str| file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let is_large = |circle: &Vec<&str>| {
        circle.len() > CIRCLE_MAX || circle.iter().any(|file| folder(file) != folder(circle[0]))
    };
    let large = sources.circles().into_iter().filter(is_large);
    let wrong: Vec<_> = large
        .map(|circle| format!("{} files import each other in a circle: {}", circle.len(), circle.join(", ")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn items_of_a_use_are_found() {
    let mut items = Vec::new();
    expand("super::{a::{B, c}, d as e}", &[], &mut |path, name| items.push((path.join("::"), name)));
    let items: Vec<_> = items.iter().map(|(path, name)| (path.as_str(), name.as_str())).collect();
    assert_eq!(items, [("super::a::B", "B"), ("super::a::c", "c"), ("super::d", "e")]);
}
