//! What is asked in the demonstration, and so what the answer must be: the responder says word by word what it was told.

/// The responder of the demonstration, in the nodes' configuration.
pub const MODEL: &str = "slow";

/// Slow enough to read along, fast enough for a pause to be seen.
pub const WORD_MS: u64 = 100;

const BEFORE: &str = "This answer comes word by word. One node of three makes it, and another one passes it on to you; each \
    word is in the store before you see it. In a moment the node that makes it will be killed, ";

const AFTER: &str = "without a warning, in the middle of a sentence. The other two notice that it is gone, and one of them \
    takes the conversation over. It reads what was said so far, and asks for the rest. So the words stand still for \
    about a second, and then the sentence goes on where it stopped, with no word missing and none said twice. You did \
    nothing, and the connection through which you read this was never broken.";

pub fn text() -> String {
    format!("{BEFORE}{AFTER}")
}

/// So much of it was shown when the node is to die.
pub fn is_time(shown: &str) -> bool {
    shown.len() >= BEFORE.len()
}

/// Where it is not the text: the first word that differs, and what stands there.
pub fn difference(shown: &str) -> Option<String> {
    let text = text();
    if shown == text {
        return None;
    }
    let (mut right, mut seen) = (text.split(' '), shown.split(' '));
    for n in 1.. {
        match (right.next(), seen.next()) {
            (Some(right), Some(seen)) if right == seen => {}
            (None, None) => break,
            (Some(right), Some(seen)) => return Some(format!("word {n} is `{seen}`, and should be `{right}`")),
            (Some(right), None) => return Some(format!("it ends before word {n}, `{right}`")),
            (None, Some(seen)) => return Some(format!("word {n}, `{seen}`, is one too many")),
        }
    }
    Some("its spaces differ".to_owned())
}

pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_text_is_the_text() {
        let text = text();
        assert_eq!(difference(&text), None);
        let said = |shown: &str| difference(shown).unwrap();
        assert!(said(&text.replacen(" answer ", " ", 1)).contains("word 2 is `comes`, and should be `answer`"));
        assert!(said(&text.replacen(" answer ", " answer answer ", 1)).contains("word 3 is `answer`"));
        assert!(said(text.trim_end_matches(" broken.")).contains("it ends before"));
        assert!(said(&format!("{text} twice")).contains("one too many"));
        assert!(said("").contains("word 1"));
    }

    #[test]
    fn the_node_dies_in_the_middle_of_a_sentence() {
        assert!(is_time(BEFORE) && !is_time(BEFORE.trim_end()));
        assert!(text().contains("killed, without"));
    }
}
