//! The page: prose stands in `README.md` itself, and between two marks (`<!-- begin NAME -->`, `<!-- end NAME -->`) what
//! follows from the results.

mod conclusions;
mod tables;
mod text;

use anyhow::{Context, Result, ensure};

use crate::results::Results;

/// Name and text of each part of the page that these results give; of quick results each is a part of the full one's lines.
pub fn parts(results: &Results) -> Vec<(&'static str, String)> {
    let mut parts = vec![
        ("load", tables::load()),
        ("shards", tables::shards(results)),
        ("bounds", tables::bounds(results)),
        ("moves", tables::moves(results)),
        ("beats", tables::beats(results)),
        ("deaths", tables::deaths(results)),
        ("herd", tables::herd(results)),
        ("limits", tables::limits(results)),
    ];
    if let Some(populated) = &results.populated {
        parts.push(("turns", tables::turns(populated)));
        parts.extend(conclusions::cells(results, populated).map(|cells| ("cells", cells)));
        parts.extend(conclusions::conclusions(results, populated).map(|said| ("conclusions", said)));
    }
    parts
}

/// The page with these parts in place of what stands between their marks.
pub fn filled(page: &str, parts: &[(&str, String)]) -> Result<String> {
    let mut page = page.to_owned();
    for (name, text) in parts {
        let (from, to) = bounds(&page, name)?;
        page.replace_range(from..to, text);
    }
    Ok(page)
}

/// Refused where a line of these parts does not stand in the page.
pub fn check(page: &str, parts: &[(&str, String)]) -> Result<()> {
    for (name, text) in parts {
        let (from, to) = bounds(page, name)?;
        for line in text.lines() {
            let stands = page[from..to].lines().any(|there| there == line);
            ensure!(stands, "the page does not say what is computed now, under {name}:\n{line}");
        }
    }
    Ok(())
}

fn bounds(page: &str, name: &str) -> Result<(usize, usize)> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = page.find(&begin).with_context(|| format!("the page has no mark {begin}"))? + begin.len();
    let to = page[from..].find(&end).with_context(|| format!("the page has no mark {end}"))? + from;
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_put_between_its_marks_and_nothing_else_changes() {
        let page = "a\n<!-- begin b -->\nold\n<!-- end b -->\nc\n";
        let filled = filled(page, &[("b", "new\n".into())]).unwrap();
        assert_eq!(filled, "a\n<!-- begin b -->\nnew\n<!-- end b -->\nc\n");
        check(&filled, &[("b", "new\n".into())]).unwrap();
        assert!(check(page, &[("b", "new\n".into())]).is_err());
        assert!(check(page, &[("other", String::new())]).is_err(), "a part without marks is refused");
    }
}
