//! A script of `eliza`: what it consists of, how its text is read, and how a pattern is laid over words.
//!
//! The file is read line by line; indentation, blank lines and lines that begin with `#` mean nothing. Every other
//! line is a word, a colon and the rest:
//!
//! | line | says |
//! |---|---|
//! | `hello: TEXT` | a greeting, said where the first message is empty; one or more |
//! | `bye: TEXT` | a farewell; one or more |
//! | `quit: WORDS, WORDS` | messages that are answered with a farewell |
//! | `pre: WORDS = WORDS` | replaced in what was said, before anything is looked up |
//! | `post: WORDS = WORDS` | replaced in what is given back: `my = your` |
//! | `class: NAME = WORD, WORD` | a set of words, `@NAME` in patterns and keys |
//! | `key: WORD, @NAME RANK` | a keyword (or several that share their rules); the highest rank in a clause is tried first; without a number it is 0 |
//! | `match: PATTERN` | a rule of the key, tried in this order |
//! | `say: TEXT` | an answer of the rule; its answers take turns. `(1)` is what the pattern's first capture held |
//! | `goto: WORD` | in place of an answer: go on with the rules of that key |
//! | `next:` | in place of an answer: go on with the clause's next keyword |
//! | `memory: WORD` | a key's `match:` and `say:` lines for later: kept when it is a clause's first keyword, said when no keyword is found |
//! | `none:` | `say:` lines for when all else fails |
//!
//! A pattern is made of words; `*` (any words, or none), `+` (one word or more), `?` (one word), `@NAME` (a word of
//! a class) and `[a|b]` (one of these words). All but plain words are captures, counted from 1.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Rules of one script: what a conversation remembers of them has to fit its memory.
pub const RULES_MAX: usize = 2_000;
/// Answers of one rule: the turn is remembered in a byte.
const SAYS_MAX: usize = 250;
/// Words on the left side of a `pre:` or `post:` line.
const REPLACED_WORDS_MAX: usize = 3;

#[derive(Debug)]
pub struct Script {
    pub hello: Rule,
    pub bye: Rule,
    pub none: Rule,
    pub quit: HashSet<String>,
    pub pre: Replacements,
    pub post: Replacements,
    pub keys: Vec<Key>,
    /// Word to place in `keys`.
    pub keywords: HashMap<String, usize>,
    /// Changes with the script: what is remembered of one means nothing to another.
    pub fingerprint: u32,
}

#[derive(Debug, Default)]
pub struct Key {
    pub rank: u32,
    pub rules: Vec<Rule>,
    pub memory: Vec<Rule>,
}

#[derive(Debug, Default)]
pub struct Rule {
    /// Counts the rules of a script.
    pub id: u16,
    pub pattern: Vec<Element>,
    pub says: Vec<Say>,
}

#[derive(Debug)]
pub enum Element {
    Word(String),
    /// `*` or `+`.
    Gap {
        least: usize,
    },
    /// `?`
    One,
    OneOf(HashSet<String>),
}

#[derive(Debug)]
pub enum Say {
    Text(Vec<Fragment>),
    /// Place in [`Script::keys`].
    Goto(usize),
    Next,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Fragment {
    Text(String),
    /// From 0.
    Capture(usize),
}

#[derive(Debug, Default)]
pub struct Replacements(HashMap<String, Vec<String>>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    pub line: usize,
    pub message: String,
}

impl Script {
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let mut parser = Parser::default();
        let mut line = 0;
        for read in text.lines() {
            line += 1;
            parser.line = line;
            let read = read.trim_start_matches('\u{feff}').trim();
            if !read.is_empty() && !read.starts_with('#') {
                parser.read(read).map_err(|message| ScriptError { line, message })?;
            }
        }
        parser.finish(fingerprint(text))
    }
}

impl Replacements {
    /// How many of the words, which begin the rest of a clause, are replaced, and with what.
    pub fn find<'a>(&self, words: impl Iterator<Item = &'a str>) -> Option<(usize, &[String])> {
        let mut phrase = String::new();
        let mut found = None;
        for (index, word) in words.take(REPLACED_WORDS_MAX).enumerate() {
            if index > 0 {
                phrase.push(' ');
            }
            phrase.push_str(word);
            if let Some(replacement) = self.0.get(&phrase) {
                found = Some((index + 1, replacement.as_slice()));
            }
        }
        found
    }
}

impl Rule {
    /// Where the pattern's captures lie in the words, if it fits them. Each gap takes as few words as it can: where
    /// any placement fits, this one does, so nothing is ever tried twice.
    pub fn captures(&self, words: &[&str]) -> Option<Vec<Range<usize>>> {
        let mut captures = Vec::new();
        let mut at = 0;
        let mut rest = self.pattern.as_slice();
        while let Some(first) = rest.first() {
            let gap = match first {
                Element::Gap { least } => Some(*least),
                Element::Word(_) | Element::One | Element::OneOf(_) => None,
            };
            let behind_gap = &rest[usize::from(gap.is_some())..];
            let fixed = behind_gap.iter().take_while(|element| !matches!(element, Element::Gap { .. })).count();
            let (run, behind_run) = behind_gap.split_at(fixed);
            let start = match gap {
                None => Some(at).filter(|at| fits(run, words, *at)),
                Some(least) if behind_run.is_empty() => {
                    words.len().checked_sub(fixed).filter(|start| *start >= at + least && fits(run, words, *start))
                }
                Some(least) => (at + least..=words.len()).find(|start| fits(run, words, *start)),
            }?;
            captures.extend(gap.map(|_| at..start));
            let captured = run.iter().enumerate().filter(|(_, element)| element.is_capture());
            captures.extend(captured.map(|(index, _)| start + index..start + index + 1));
            at = start + fixed;
            rest = behind_run;
        }
        (at == words.len()).then_some(captures)
    }
}

fn fits(run: &[Element], words: &[&str], at: usize) -> bool {
    words.get(at..at + run.len()).is_some_and(|words| run.iter().zip(words).all(|(element, word)| element.fits(word)))
}

impl Element {
    fn fits(&self, word: &str) -> bool {
        match self {
            Element::Word(own) => own == word,
            Element::OneOf(words) => words.contains(word),
            Element::One | Element::Gap { .. } => true,
        }
    }

    fn is_capture(&self) -> bool {
        !matches!(self, Element::Word(_))
    }
}

/// FNV-1a: small, fixed and good enough to notice an edit.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Where `match:` and `say:` lines belong now.
#[derive(Clone, Copy, Default)]
enum Section {
    #[default]
    Nowhere,
    Key(usize),
    Memory(usize),
    None,
}

/// What a line refers to and a later line may define.
struct Forward {
    line: usize,
    word: String,
    key: usize,
    rule: usize,
    say: usize,
}

#[derive(Default)]
struct Parser {
    line: usize,
    hello: Rule,
    bye: Rule,
    none: Rule,
    quit: HashSet<String>,
    pre: Replacements,
    post: Replacements,
    classes: HashMap<String, HashSet<String>>,
    keys: Vec<Key>,
    key_lines: Vec<usize>,
    keywords: HashMap<String, usize>,
    gotos: Vec<Forward>,
    rules: usize,
    section: Section,
}

type Read = Result<(), String>;

impl Parser {
    fn read(&mut self, line: &str) -> Read {
        let (word, rest) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is no `word: …`: a colon is missing"))?;
        let rest = rest.trim();
        match word.trim() {
            "hello" => push_text(&mut self.hello, rest),
            "bye" => push_text(&mut self.bye, rest),
            "quit" => list(rest).map(|words| self.quit.extend(words)),
            "pre" => read_replacement(&mut self.pre, rest),
            "post" => read_replacement(&mut self.post, rest),
            "class" => self.read_class(rest),
            "key" => self.read_key(rest),
            "match" => self.read_match(rest),
            "say" => self.read_say(rest),
            "goto" => self.read_goto(rest),
            "next" => self.push_say(Say::Next),
            "memory" => self.read_memory(rest),
            "none" => {
                self.section = Section::None;
                Ok(())
            }
            other => Err(format!(
                "`{other}:` is not known; a line begins with hello, bye, quit, pre, post, class, key, match, say, goto, next, \
                 memory or none"
            )),
        }
    }

    fn read_class(&mut self, rest: &str) -> Read {
        let (name, words) = rest.split_once('=').ok_or("write `class: NAME = WORD, WORD`")?;
        self.classes.entry(plain(name)).or_default().extend(list(words)?);
        Ok(())
    }

    fn read_key(&mut self, rest: &str) -> Read {
        let (words, rank) = match rest.rsplit_once(' ').map(|(words, rank)| (words, rank.parse())) {
            Some((words, Ok(rank))) => (words, rank),
            Some((_, Err(_))) | None => (rest, 0),
        };
        let key = self.keys.len();
        for word in list(words)? {
            let all = match word.strip_prefix('@') {
                Some(name) => self.class(name)?.iter().cloned().collect(),
                None => vec![word],
            };
            for word in all {
                if word.contains(' ') {
                    return Err(format!("the key `{word}` is more than one word: put commas between keys"));
                }
                if self.keywords.insert(word.clone(), key).is_some() {
                    return Err(format!("`{word}` is a key already: add its rules there"));
                }
            }
        }
        self.keys.push(Key { rank, ..Key::default() });
        self.key_lines.push(self.line);
        self.section = Section::Key(key);
        Ok(())
    }

    fn read_memory(&mut self, rest: &str) -> Read {
        let key = self.keywords.get(&plain(rest));
        let key = key.ok_or_else(|| format!("`{rest}` is not a key yet: put `memory:` behind its `key:`"))?;
        self.section = Section::Memory(*key);
        Ok(())
    }

    fn read_match(&mut self, rest: &str) -> Read {
        let mut rule = self.new_rule()?;
        rule.pattern = self.pattern(rest)?;
        self.rules_here().ok_or("`match:` stands behind a `key:` or a `memory:`")?.push(rule);
        Ok(())
    }

    fn read_say(&mut self, rest: &str) -> Read {
        self.push_say(Say::Text(fragments(rest)?))
    }

    fn read_goto(&mut self, rest: &str) -> Read {
        let Section::Key(key) = self.section else { return Err("`goto:` stands behind a `match:` of a key".into()) };
        // Put right by `finish`, when all keys are known.
        self.push_say(Say::Goto(key))?;
        let rule = self.keys[key].rules.len() - 1;
        let say = self.keys[key].rules[rule].says.len() - 1;
        self.gotos.push(Forward { line: self.line, word: plain(rest), key, rule, say });
        Ok(())
    }

    fn push_say(&mut self, say: Say) -> Read {
        let rule = match self.section {
            Section::None => Some(&mut self.none),
            Section::Nowhere | Section::Key(_) | Section::Memory(_) => {
                self.rules_here().and_then(|rules| rules.last_mut())
            }
        };
        let rule = rule.ok_or("an answer stands behind a `match:` or behind `none:`")?;
        let captures = rule.pattern.iter().filter(|element| element.is_capture()).count();
        if let Say::Text(fragments) = &say
            && let Some(beyond) = fragments.iter().find_map(|fragment| fragment.beyond(captures))
        {
            return Err(format!("({beyond}) is not there: the pattern has {captures} captures, counted from 1"));
        }
        push(rule, say)
    }

    fn rules_here(&mut self) -> Option<&mut Vec<Rule>> {
        match self.section {
            Section::Key(key) => Some(&mut self.keys[key].rules),
            Section::Memory(key) => Some(&mut self.keys[key].memory),
            Section::Nowhere | Section::None => None,
        }
    }

    fn new_rule(&mut self) -> Result<Rule, String> {
        // 0 to 2 are `hello`, `bye` and `none`.
        let id = self.rules + 3;
        if id >= RULES_MAX {
            return Err(format!("a script may have {} `match:` lines", RULES_MAX - 3));
        }
        self.rules += 1;
        Ok(Rule { id: u16::try_from(id).expect("RULES_MAX is below 65,536"), ..Rule::default() })
    }

    fn pattern(&self, text: &str) -> Result<Vec<Element>, String> {
        let mut pattern: Vec<Element> = Vec::new();
        for token in text.split_whitespace() {
            let element = self.element(token)?;
            if matches!((pattern.last(), &element), (Some(Element::Gap { .. }), Element::Gap { .. })) {
                return Err(format!("`{token}` follows another `*` or `+`: one of them is enough"));
            }
            pattern.push(element);
        }
        if pattern.is_empty() {
            return Err("the pattern is empty: `*` fits everything".into());
        }
        Ok(pattern)
    }

    fn element(&self, token: &str) -> Result<Element, String> {
        Ok(match token {
            "*" => Element::Gap { least: 0 },
            "+" => Element::Gap { least: 1 },
            "?" => Element::One,
            _ => match (token.strip_prefix('@'), token.strip_prefix('[')) {
                (Some(name), _) => Element::OneOf(self.class(name)?.clone()),
                (None, Some(words)) => {
                    let words = words.strip_suffix(']').ok_or("`[` has no `]`: write `[a|b]` without spaces")?;
                    Element::OneOf(words.split('|').map(plain).collect())
                }
                (None, None) => Element::Word(plain(token)),
            },
        })
    }

    fn class(&self, name: &str) -> Result<&HashSet<String>, String> {
        let missing = || format!("there is no class `{name}` yet: write `class: {name} = WORD, WORD` above");
        self.classes.get(&plain(name)).ok_or_else(missing)
    }

    fn finish(mut self, fingerprint: u32) -> Result<Script, ScriptError> {
        for Forward { line, word, key, rule, say } in std::mem::take(&mut self.gotos) {
            let message = format!("`goto: {word}` leads nowhere: there is no `key: {word}`");
            let target = self.keywords.get(&word).ok_or(ScriptError { line, message })?;
            self.keys[key].rules[rule].says[say] = Say::Goto(*target);
        }
        self.check_is_whole()?;
        let Self { hello, mut bye, mut none, quit, pre, post, keys, keywords, .. } = self;
        (bye.id, none.id) = (1, 2);
        Ok(Script { hello, bye, none, quit, pre, post, keys, keywords, fingerprint })
    }

    fn check_is_whole(&self) -> Result<(), ScriptError> {
        let refuse = |line, message: &str| Err(ScriptError { line, message: message.into() });
        for (key, line) in self.keys.iter().zip(&self.key_lines) {
            if key.rules.is_empty() || key.rules.iter().chain(&key.memory).any(|rule| rule.says.is_empty()) {
                return refuse(*line, "this key needs a `match:`, and each `match:` a `say:`, `goto:` or `next:`");
            }
        }
        let wanted = [("hello: TEXT", &self.hello), ("bye: TEXT", &self.bye), ("none:` and `say: TEXT", &self.none)];
        for (wanted, rule) in wanted {
            if !rule.says.iter().any(|say| matches!(say, Say::Text(_))) {
                return refuse(self.line, &format!("the script ends without a `{wanted}`"));
            }
        }
        Ok(())
    }
}

impl Fragment {
    /// Its number as written, if the pattern has no such capture.
    fn beyond(&self, captures: usize) -> Option<usize> {
        match self {
            Fragment::Capture(index) if *index >= captures => Some(index + 1),
            Fragment::Capture(_) | Fragment::Text(_) => None,
        }
    }
}

fn push_text(rule: &mut Rule, text: &str) -> Read {
    push(rule, Say::Text(vec![Fragment::Text(not_empty(text)?.to_owned())]))
}

fn push(rule: &mut Rule, say: Say) -> Read {
    if rule.says.len() >= SAYS_MAX {
        return Err(format!("this rule has {SAYS_MAX} answers, and that is the most"));
    }
    rule.says.push(say);
    Ok(())
}

fn read_replacement(replacements: &mut Replacements, rest: &str) -> Read {
    let (from, to) = rest.split_once('=').ok_or("write `WORDS = WORDS`")?;
    let from = plain(not_empty(from)?);
    if from.split(' ').count() > REPLACED_WORDS_MAX {
        return Err(format!("at most {REPLACED_WORDS_MAX} words can be replaced at once"));
    }
    replacements.0.insert(from, not_empty(to)?.split_whitespace().map(str::to_owned).collect());
    Ok(())
}

fn fragments(text: &str) -> Result<Vec<Fragment>, String> {
    let mut fragments = Vec::new();
    let mut literal = String::new();
    let mut rest = not_empty(text)?;
    while let Some((before, behind)) = rest.split_once('(') {
        literal.push_str(before);
        match behind.split_once(')').map(|(number, behind)| (number.parse::<usize>(), behind)) {
            Some((Ok(0), _)) => return Err("captures are counted from 1: there is no (0)".into()),
            Some((Ok(number), behind)) => {
                fragments.push(Fragment::Text(std::mem::take(&mut literal)));
                fragments.push(Fragment::Capture(number - 1));
                rest = behind;
            }
            Some((Err(_), _)) | None => {
                literal.push('(');
                rest = behind;
            }
        }
    }
    literal.push_str(rest);
    fragments.push(Fragment::Text(literal));
    fragments.retain(|fragment| *fragment != Fragment::Text(String::new()));
    Ok(fragments)
}

fn list(text: &str) -> Result<Vec<String>, String> {
    not_empty(text)?.split(',').map(|words| Ok(plain(not_empty(words)?))).collect()
}

fn not_empty(text: &str) -> Result<&str, String> {
    Some(text.trim()).filter(|text| !text.is_empty()).ok_or_else(|| "something is missing here".into())
}

/// As words are compared: lower case, single spaces.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: &str = "hello: Hello.\nbye: Goodbye.\nnone:\nsay: Go on.\n";

    fn script(lines: &str) -> Script {
        Script::parse(&format!("{FRAME}{lines}")).expect("the script is right")
    }

    fn captures(pattern: &str, text: &str) -> Option<Vec<String>> {
        let script = script(&format!("class: kin = mother, father\nkey: x\nmatch: {pattern}\nsay: y"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let captures = script.keys[0].rules[0].captures(&words)?;
        Some(captures.into_iter().map(|range| words[range].join(" ")).collect())
    }

    fn refusal(lines: &str) -> String {
        Script::parse(lines).expect_err("the script is wrong").to_string()
    }

    #[test]
    fn a_pattern_captures_all_but_its_words() {
        assert_eq!(
            captures("* my @kin *", "well my mother sings"),
            Some(vec!["well".into(), "mother".into(), "sings".into()])
        );
        assert_eq!(captures("my [cat|dog] ?", "my dog barks"), Some(vec!["dog".into(), "barks".into()]));
        assert_eq!(captures("* a * a", "a b a c a"), Some(vec![String::new(), "b a c".into()]));
        assert_eq!(captures("* a * b *", "a a b b"), Some(vec![String::new(), "a".into(), "b".into()]));
        assert_eq!(captures("i need +", "i need"), None);
        assert_eq!(captures("i need +", "i need you"), Some(vec!["you".into()]));
        assert_eq!(captures("+ need *", "need need"), Some(vec!["need".into(), String::new()]));
        assert_eq!(captures("* my @kin", "my mother sings"), None);
        assert_eq!(captures("hello", "hello there"), None);
    }

    #[test]
    fn long_clauses_of_one_word_take_no_time() {
        let pattern = "* a * a * a * a * a * a * a b";
        assert_eq!(captures(pattern, &"a ".repeat(500)), None);
    }

    #[test]
    fn the_longest_phrase_is_replaced() {
        let script = script("post: you = I\npost: you are = I am");
        let find = |words: [&'static str; 3]| script.post.find(words.into_iter()).map(|(n, to)| (n, to.join(" ")));
        assert_eq!(find(["you", "are", "kind"]), Some((2, "I am".into())));
        assert_eq!(find(["you", "were", "kind"]), Some((1, "I".into())));
        assert_eq!(find(["were", "you", "are"]), None);
    }

    #[test]
    fn an_error_names_its_line_and_what_would_be_right() {
        assert_eq!(
            refusal("hello: x\n\nkey: a\nmatch: * a\nsay: (2)"),
            "line 5: (2) is not there: the pattern has 1 captures, counted from 1"
        );
        assert_eq!(refusal("key: a 1\nmatch: *\ngoto: b"), "line 3: `goto: b` leads nowhere: there is no `key: b`");
        assert_eq!(refusal("# x\nsay: y"), "line 2: an answer stands behind a `match:` or behind `none:`");
        assert!(refusal("what now").starts_with("line 1: `what now` is no `word: …`"));
        assert!(refusal("wat: x").starts_with("line 1: `wat:` is not known; a line begins with hello"));
        assert!(refusal("key: a\nkey: b\nkey: A").ends_with("`a` is a key already: add its rules there"));
        assert!(refusal("key: a\nmatch: * + a").starts_with("line 2: `+` follows another"));
        assert!(refusal("key: @kin").starts_with("line 1: there is no class `kin` yet"));
        assert!(refusal("key: a\nmatch: [b").contains("`[` has no `]`"));
        assert!(refusal("memory: a").contains("`a` is not a key yet"));
        assert!(refusal("key: a\nnone:\nsay: x\nhello: x\nbye: x").starts_with("line 1: this key needs a `match:`"));
        assert!(refusal("hello: x\nbye: y").starts_with("line 2: the script ends without a `none:`"));
        assert!(refusal("hello:").contains("something is missing here"));
        assert!(refusal("none:\nsay: (0)").contains("counted from 1"));
    }

    #[test]
    fn a_script_has_a_limit_of_rules() {
        let rules = "match: *\nsay: x\n".repeat(RULES_MAX);
        let error = Script::parse(&format!("{FRAME}key: a\n{rules}")).expect_err("too many");
        assert!(error.to_string().contains("a script may have 1997 `match:` lines"), "{error}");
    }

    #[test]
    fn parentheses_without_a_number_are_text() {
        assert_eq!(fragments("so (it seems)"), Ok(vec![Fragment::Text("so (it seems)".into())]));
        let parts = vec![Fragment::Text("a ".into()), Fragment::Capture(11), Fragment::Text("(".into())];
        assert_eq!(fragments("a (12)("), Ok(parts));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            lines in proptest::collection::vec(("(hello|bye|none|key|match|say|goto|memory|pre|class|x)", ": ?[a-c@*+?()|=,\\[\\]1 ]{0,9}"), 0..12)
        ) {
            let text: String = lines.into_iter().map(|(word, rest)| format!("{word}{rest}\n")).collect();
            if let Err(error) = Script::parse(&text) {
                prop_assert!(error.line <= text.lines().count());
            }
        }
    }
}
