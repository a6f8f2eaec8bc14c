//! What a measurement says: printed as it is found, and at the end written into a page that keeps it, between the two
//! markers that bear the measurement's name.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::Context;

/// Where it goes besides.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Published {
    /// Write what is measured into this page too, between its markers.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub struct Page {
    name: &'static str,
    file: Option<PathBuf>,
    said: String,
}

impl Page {
    /// A file without these markers is refused now, and not after minutes of measuring.
    pub fn new(name: &'static str, published: &Published) -> anyhow::Result<Self> {
        let page = Self { name, file: published.markdown.clone(), said: String::new() };
        page.published().map(|_| page)
    }

    /// A paragraph, a heading or a table.
    pub fn say(&mut self, block: impl Display) {
        let block = block.to_string();
        let block = block.trim_end();
        if block.is_empty() {
            return;
        }
        println!("{block}\n");
        if !self.said.is_empty() {
            self.said.push('\n');
        }
        self.said.extend([block, "\n"]);
    }

    /// Once all of it was said.
    pub fn publish(self) -> anyhow::Result<()> {
        if let (Some(file), Some(text)) = (&self.file, self.published()?) {
            std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(())
    }

    /// The file as it should be.
    fn published(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.file else { return Ok(None) };
        let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        replaced(&text, self.name, &self.said).with_context(|| file.display().to_string()).map(Some)
    }
}

/// The text with this between its markers.
fn replaced(text: &str, name: &str, said: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("there is no {begin:?}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("there is no {end:?} behind its beginning"))?;
    Ok(format!("{before}{begin}{said}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_markers_is_replaced_and_nothing_else() {
        let text = "a\n<!-- begin flat -->\nold\n<!-- end flat -->\nb <!-- begin memory -->\n<!-- end memory -->\n";
        let new = replaced(text, "flat", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(replaced(&new, "flat", "old\n").unwrap(), text);
        for name in ["fla", "streams"] {
            assert!(replaced(text, name, "new\n").is_err(), "{name}");
        }
        assert!(replaced("<!-- end flat -->\n<!-- begin flat -->\n", "flat", "new\n").is_err());
    }

    #[test]
    fn a_page_without_markers_is_refused_before_anything_is_measured() {
        let file = std::env::current_exe().unwrap().with_file_name(format!("page-{}.md", std::process::id()));
        let published = Published { markdown: Some(file.clone()) };
        std::fs::write(&file, "nothing\n").unwrap();
        assert!(Page::new("flat", &published).is_err());
        std::fs::write(&file, "<!-- begin flat -->\nold\n<!-- end flat -->\n").unwrap();
        let mut page = Page::new("flat", &published).unwrap();
        page.say("a table\n\n");
        page.say("and a sentence");
        page.publish().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(text, "<!-- begin flat -->\na table\n\nand a sentence\n<!-- end flat -->\n");
    }
}
