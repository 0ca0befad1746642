//! A folder of manifests: which of its files' contents count. Pure; whoever lists the folder hands in what it found.
//!
//! A file that does not parse keeps its last good content. A file that is gone takes its objects with it, and a folder
//! that cannot be listed changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_topology::names::ServiceId;
use portolan_topology::service::{LocalService, LocalServices};
use xxhash_rust::xxh3::xxh3_64;

use super::SourceStatus;
use super::manifest::{self, Manifest};
use crate::gateway::objects::GatewayObjects;

/// What one listing found: each file's name once, and its bytes or why they cannot be read.
pub(super) type Listing = Box<dyn Iterator<Item = (String, Result<Vec<u8>, String>)>>;

#[derive(Debug, Default)]
struct File {
    /// The hash of what was last looked at, good or bad.
    seen: Option<u64>,
    good: Option<Manifest>,
    error: Option<String>,
    warnings: Vec<String>,
}

/// A folder's files, as they count.
#[derive(Debug)]
pub(super) struct Folder {
    /// The folder as the operator gave it.
    name: String,
    files: BTreeMap<String, File>,
    listed: bool,
    /// Why the folder cannot be listed now.
    error: Option<String>,
    /// Objects that stand in several files.
    repeated: Vec<(String, String)>,
    synced: bool,
    services: BTreeMap<ServiceId, Arc<LocalService>>,
    gateways: Arc<GatewayObjects>,
}

impl Folder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            files: BTreeMap::new(),
            listed: false,
            error: None,
            repeated: Vec::new(),
            synced: false,
            services: BTreeMap::new(),
            gateways: Arc::default(),
        }
    }

    /// Takes over a listing. Says which files are newly refused, with the reason, for the log.
    pub(super) fn take(&mut self, listing: Result<Listing, String>) -> Vec<String> {
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => {
                let news = self.error.as_ref() != Some(&error);
                self.error = Some(error.clone());
                return if news { vec![error] } else { Vec::new() };
            }
        };
        self.error = None;
        self.listed = true;
        let mut gone: BTreeSet<String> = self.files.keys().cloned().collect();
        let (mut changed, mut refused) = (0, Vec::new());
        for (name, content) in listing {
            gone.remove(&name);
            let path = format!("{}/{name}", self.name);
            let file = self.files.entry(name).or_default();
            let error_before = file.error.clone();
            changed += usize::from(file.look(&path, content));
            if file.error != error_before {
                refused.extend(file.error.clone());
            }
        }
        self.files.retain(|name, _| !gone.contains(name));
        if changed + gone.len() > 0 || !self.synced {
            self.rejoin();
        }
        refused
    }

    fn rejoin(&mut self) {
        let good = self.files.iter().filter_map(|(name, file)| Some((name.as_str(), file.good.as_ref()?)));
        let (services, repeated) = manifest::join(good);
        self.repeated = repeated;
        self.services = manifest::share(services, &self.services);
        // What a file that never parsed would have held is not known: until then absence means nothing.
        self.synced |= self.listed && self.files.values().all(|file| file.good.is_some());
        let good = self.files.iter().filter_map(|(name, file)| Some((name.as_str(), file.good.as_ref()?.gateways()?)));
        let (gateways, repeated) = manifest::gateway::join(good, self.synced);
        self.repeated.extend(repeated);
        if *self.gateways != gateways {
            self.gateways = Arc::new(gateways);
        }
    }

    pub(super) fn services(&self) -> LocalServices {
        LocalServices { synced: self.synced, services: self.services.clone() }
    }

    pub(super) fn gateways(&self) -> Arc<GatewayObjects> {
        self.gateways.clone()
    }

    pub(super) fn status(&self) -> SourceStatus {
        let path = |name: &str| format!("{}/{name}", self.name);
        let mut errors: BTreeMap<_, _> =
            self.files.iter().filter_map(|(name, file)| Some((path(name), file.error.clone()?))).collect();
        errors.extend(self.error.clone().map(|error| (self.name.clone(), error)));
        let mut warnings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let of_files = self.files.iter().flat_map(|(name, file)| file.warnings.iter().map(move |text| (name, text)));
        let repeated = self.repeated.iter().map(|(name, text)| (name, text));
        for (name, text) in of_files.chain(repeated) {
            warnings.entry(path(name)).or_default().push(text.clone());
        }
        let warnings = warnings.into_iter().map(|(file, texts)| (file, texts.join("\n"))).collect();
        SourceStatus {
            source: format!("files:{}", self.name),
            synced: self.synced,
            silent_since: None,
            errors,
            warnings,
        }
    }
}

impl File {
    /// Looks at the file's content; says whether what counts has changed.
    fn look(&mut self, path: &str, content: Result<Vec<u8>, String>) -> bool {
        let bytes = match content {
            Ok(bytes) => bytes,
            Err(error) => {
                self.seen = None;
                self.error = Some(error);
                return false;
            }
        };
        let hash = xxh3_64(&bytes);
        if self.seen == Some(hash) {
            return false;
        }
        self.seen = Some(hash);
        match read(path, &bytes, self.good.is_some()) {
            Ok((manifest, warnings)) => {
                self.error = None;
                let changed = self.good.as_ref() != Some(&manifest) || self.warnings != warnings;
                self.warnings = warnings;
                self.good = Some(manifest);
                changed
            }
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }
}

fn read(path: &str, bytes: &[u8], has_content: bool) -> Result<(Manifest, Vec<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("{path}: not UTF-8 text: {error}"))?;
    // Whoever rewrites a file in place truncates it first.
    if has_content && text.trim().is_empty() {
        return Err(format!("{path}: the file is empty; remove the file to remove what it held"));
    }
    let (manifest, warnings) = manifest::parse(path, text).map_err(|refused| refused.to_string())?;
    Ok((manifest, warnings.iter().map(ToString::to_string).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[(&str, &str)]) -> Result<Listing, String> {
        let read = |(name, text): &(&str, &str)| ((*name).to_owned(), Ok(text.as_bytes().to_vec()));
        let files: Vec<_> = files.iter().map(read).collect();
        Ok(Box::new(files.into_iter()))
    }

    fn service(name: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{ports: [{{port: 80}}]}}}}"
        )
    }

    fn names(folder: &Folder) -> Vec<String> {
        folder.services().services.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_that_does_not_parse_keeps_its_last_good_content() {
        let mut folder = Folder::new("m".into());
        folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]));
        assert!(folder.services().synced);
        for broken in ["kind: [", "", "kind: Service", "\u{0}"] {
            let refused = folder.take(listing(&[("a.yaml", broken), ("b.yaml", &service("c"))]));
            assert_eq!(refused.len(), 1, "{broken:?}");
            assert_eq!(names(&folder), ["a.shop", "c.shop"]);
            assert!(folder.status().errors["m/a.yaml"].starts_with("m/a.yaml"), "{broken:?}");
            // Told once, shown as long as it is so.
            assert_eq!(folder.take(listing(&[("a.yaml", broken), ("b.yaml", &service("c"))])), Vec::<String>::new());
            assert_eq!(folder.status().errors.len(), 1);
            folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]));
            assert_eq!(folder.status().errors.len(), 0);
        }
        folder.take(listing(&[("b.yaml", &service("b"))]));
        assert_eq!(names(&folder), ["b.shop"]);
    }

    #[test]
    fn a_folder_that_cannot_be_listed_changes_nothing() {
        let mut folder = Folder::new("m".into());
        folder.take(listing(&[("a.yaml", &service("a"))]));
        assert_eq!(folder.take(Err("m: gone".into())), ["m: gone"]);
        assert_eq!(names(&folder), ["a.shop"]);
        assert_eq!(folder.status().errors["m"], "m: gone");
        let unreadable = [("a.yaml".to_owned(), Err("m/a.yaml: not allowed".to_owned()))];
        folder.take(Ok(Box::new(unreadable.into_iter())));
        assert_eq!(names(&folder), ["a.shop"]);
        assert_eq!(folder.status().errors["m/a.yaml"], "m/a.yaml: not allowed");
    }

    #[test]
    fn a_file_that_never_parsed_leaves_the_source_unsynced() {
        let mut folder = Folder::new("m".into());
        folder.take(listing(&[("a.yaml", "kind: ["), ("b.yaml", &service("b"))]));
        assert!(!folder.services().synced);
        assert_eq!(names(&folder), ["b.shop"]);
        folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]));
        assert!(folder.services().synced);
        folder.take(listing(&[("a.yaml", &service("a")), ("c.yaml", "kind: [")]));
        assert!(folder.services().synced, "once synced it stays so");
    }

    #[test]
    fn an_object_in_two_files_counts_once_and_is_told_of() {
        let mut folder = Folder::new("m".into());
        folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("a"))]));
        assert_eq!(names(&folder), ["a.shop"]);
        assert_eq!(folder.status().warnings["m/b.yaml"], "Service shop/a stands in a.yaml too, which counts");
    }

    #[test]
    fn services_that_did_not_change_keep_their_allocation() {
        let mut folder = Folder::new("m".into());
        folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]));
        let before = folder.services();
        folder.take(listing(&[("a.yaml", &service("a")), ("b.yaml", &service("c"))]));
        let after = folder.services();
        let a: ServiceId = "a.shop".parse().unwrap();
        assert!(Arc::ptr_eq(&before.services[&a], &after.services[&a]));
    }
}
