//! No page of the repository leads to what is not there.

use klatch_tests::markdown::{anchors, links, pages, root};

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let mut broken = Vec::new();
    let mut looked = 0;
    for page in pages().unwrap() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            looked += 1;
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, at)| (path, Some(at)));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            let leads = match (target.exists(), anchor) {
                (true, None) => true,
                (true, Some(anchor)) => std::fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|known| known == anchor)),
                (false, _) => false,
            };
            if !leads {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(looked > 20, "only {looked} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
}
