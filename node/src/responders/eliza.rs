//! The responder `eliza`: Joseph Weizenbaum's way (CACM 9, 1966) of holding a conversation with no understanding of
//! it, by a script of keywords, decompositions and reassemblies. The default model: it needs nothing else.
//!
//! Deterministic. What it keeps of a conversation (whose turn it is among a rule's answers, and what it may come back to)
//! travels in `End::memory`, so any node goes on where the last one stopped.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use klatch_actors::Responder;
use klatch_actors::responder::{Answered, Ask, End, ResponderError, Said};
use klatch_protocol::turn::{Incomplete, Usage};
use serde::{Deserialize, Serialize};

use super::eliza_script::{Fragment, RULES_MAX, Rule, Say, Script};
use super::pieces::{last_user_text, max_output_tokens, pieces};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElizaOptions {
    /// What `model` names it by.
    pub name: String,
    /// A file with another script; node/src/responders/eliza_script.rs describes the format. Default: the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
}

impl ElizaOptions {
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), script: None }
    }
}

pub const BUILT_IN_SCRIPT: &str = include_str!("doctor.txt");

/// Of a message, so much is read: what follows changes no answer that a person would notice.
const TEXT_BYTES_MAX: usize = 4 << 10;
const CLAUSE_WORDS_MAX: usize = 100;
/// Jumps from key to key for one answer; a script may go round in circles.
const GOTOS_MAX: usize = 8;
/// What it may come back to: as many remarks, each so long.
const REMARKS_MAX: usize = 16;
const REMARK_BYTES_MAX: usize = 400;

pub struct Eliza {
    script: Script,
}

impl Eliza {
    pub fn new(script: Script) -> Self {
        Self { script }
    }

    fn said(&self, ask: &Ask) -> (Option<String>, End) {
        let mut state = State::decode(ask.memory.as_deref().unwrap_or_default(), self.script.fingerprint);
        let text = last_user_text(ask);
        let whole = Speaker { script: &self.script, state: &mut state }.answer(&text);
        let max = max_output_tokens(ask).map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let reply: String = pieces(&whole).take(max).collect();
        let cut = reply.len() < whole.len();
        // The same words are found again by an owner that takes over: the memory is that of the turn before.
        let rest = reply.strip_prefix(ask.partial.as_str());
        let usage =
            Usage { input: pieces(&text).count() as u64, output: pieces(&reply).count() as u64, ..Usage::default() };
        let incomplete = match (rest, cut) {
            (None, _) => Some(Incomplete::TakenOver),
            (Some(_), true) => Some(Incomplete::MaxOutputTokens),
            (Some(_), false) => None,
        };
        let end = End { usage, incomplete, memory: Some(state.encode(self.script.fingerprint)) };
        (rest.filter(|rest| !rest.is_empty()).map(str::to_owned), end)
    }
}

impl Responder for Eliza {
    fn history_items(&self) -> usize {
        0
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn answer(&self, ask: &Ask) -> Answered {
        let (text, end) = self.said(ask);
        Answered { pieces: text.into_iter().collect(), end }
    }

    fn respond(&self, ask: Ask) -> BoxStream<'static, Result<Said, ResponderError>> {
        stream::iter(self.answer(&ask).into_said().into_iter().map(Ok)).boxed()
    }
}

/// What it remembers of one conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// By a rule's id: which of its answers is next. A rule whose first answer is next is not listed.
    turns: BTreeMap<u16, u8>,
    /// Oldest first.
    remarks: VecDeque<String>,
    begun: bool,
}

impl State {
    const VERSION: u8 = 1;

    /// `version, fingerprint: u32, rules: u16, (rule: u16, turn: u8)*, (length: u16, remark)*`, little endian.
    fn encode(&self, fingerprint: u32) -> Vec<u8> {
        let mut bytes = vec![Self::VERSION];
        bytes.extend(fingerprint.to_le_bytes());
        bytes.extend((self.turns.len() as u16).to_le_bytes());
        for (rule, turn) in &self.turns {
            bytes.extend(rule.to_le_bytes());
            bytes.push(*turn);
        }
        for remark in &self.remarks {
            bytes.extend((remark.len() as u16).to_le_bytes());
            bytes.extend(remark.as_bytes());
        }
        bytes
    }

    /// Bytes of another version, of another script or of another responder are as good as none.
    fn decode(bytes: &[u8], fingerprint: u32) -> Self {
        Self::read(bytes, fingerprint).unwrap_or_default()
    }

    fn read(mut bytes: &[u8], fingerprint: u32) -> Option<Self> {
        let bytes = &mut bytes;
        let mut state = Self { begun: true, ..Self::default() };
        if take(bytes)? != [Self::VERSION] || u32::from_le_bytes(take(bytes)?) != fingerprint {
            return None;
        }
        for _ in 0..u16::from_le_bytes(take(bytes)?) {
            state.turns.insert(u16::from_le_bytes(take(bytes)?), u8::from_le_bytes(take(bytes)?));
        }
        while !bytes.is_empty() {
            let length = usize::from(u16::from_le_bytes(take(bytes)?));
            let (remark, rest) = bytes.split_at_checked(length)?;
            state.remark(str::from_utf8(remark).ok()?.to_owned());
            *bytes = rest;
        }
        (state.turns.len() <= RULES_MAX).then_some(state)
    }

    fn remark(&mut self, remark: String) {
        if remark.len() > REMARK_BYTES_MAX {
            return;
        }
        if self.remarks.len() >= REMARKS_MAX {
            self.remarks.pop_front();
        }
        self.remarks.push_back(remark);
    }

    /// The rule's next answer.
    fn turn<'a>(&mut self, rule: &'a Rule) -> Option<&'a Say> {
        let turn = usize::from(self.turns.remove(&rule.id).unwrap_or(0)) % rule.says.len().max(1);
        let next = (turn + 1) % rule.says.len().max(1);
        if next > 0 {
            self.turns.insert(rule.id, next as u8);
        }
        rule.says.get(turn)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// A word as it was written, and as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    shown: String,
    plain: String,
}

/// What a key comes to.
enum Tried {
    Said(String),
    /// Try the clause's next keyword.
    Passed,
}

struct Speaker<'a> {
    script: &'a Script,
    state: &'a mut State,
}

impl Speaker<'_> {
    /// Never empty: a script without a line for when all else fails is refused.
    fn answer(&mut self, text: &str) -> String {
        let clauses: Vec<Vec<Word>> = clauses(text).into_iter().map(|words| self.replaced(words)).collect();
        let script = self.script;
        if clauses.is_empty() && text.trim().is_empty() && !self.state.begun {
            return self.plain_turn(&script.hello);
        }
        if script.quit.contains(&phrase(clauses.iter().flatten())) {
            return self.plain_turn(&script.bye);
        }
        let with_keyword =
            clauses.iter().find(|words| words.iter().any(|word| script.keywords.contains_key(&word.plain)));
        match with_keyword.and_then(|words| self.answer_clause(words)) {
            Some(answer) => answer,
            None => match self.state.remarks.pop_front() {
                Some(remark) => remark,
                None => self.plain_turn(&script.none),
            },
        }
    }

    fn answer_clause(&mut self, words: &[Word]) -> Option<String> {
        let keys = self.keys(words);
        self.remember(*keys.first()?, words);
        for key in keys {
            match self.try_key(key, words) {
                Tried::Said(answer) => return Some(answer),
                Tried::Passed => {}
            }
        }
        None
    }

    /// The clause's keys, the highest rank first, those of one rank as they were said.
    fn keys(&self, words: &[Word]) -> Vec<usize> {
        let mut keys = Vec::new();
        for key in words.iter().filter_map(|word| self.script.keywords.get(&word.plain)) {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        keys.sort_by_key(|key| std::cmp::Reverse(self.script.keys[*key].rank));
        keys
    }

    fn remember(&mut self, key: usize, words: &[Word]) {
        let script = self.script;
        for rule in &script.keys[key].memory {
            let Some(captures) = self.captures(rule, words) else { continue };
            if let Some(Say::Text(fragments)) = self.state.turn(rule) {
                let remark = compose(fragments, &captures);
                self.state.remark(remark);
            }
            return;
        }
    }

    fn try_key(&mut self, mut key: usize, words: &[Word]) -> Tried {
        let script = self.script;
        for _ in 0..=GOTOS_MAX {
            let fitting = script.keys[key].rules.iter().find_map(|rule| Some((rule, self.captures(rule, words)?)));
            let Some((rule, captures)) = fitting else { return Tried::Passed };
            match self.state.turn(rule) {
                Some(Say::Text(fragments)) => return Tried::Said(compose(fragments, &captures)),
                Some(Say::Goto(next)) => key = *next,
                Some(Say::Next) | None => return Tried::Passed,
            }
        }
        Tried::Passed
    }

    /// What the rule's captures hold, turned from the speaker's point of view to the listener's.
    fn captures(&self, rule: &Rule, words: &[Word]) -> Option<Vec<String>> {
        let plain: Vec<&str> = words.iter().map(|word| word.plain.as_str()).collect();
        let captures = rule.captures(&plain)?;
        Some(captures.into_iter().map(|range| self.turned(&words[range])).collect())
    }

    fn turned(&self, mut words: &[Word]) -> String {
        let mut turned: Vec<&str> = Vec::new();
        while let Some(word) = words.first() {
            match self.script.post.find(words.iter().map(|word| word.plain.as_str())) {
                Some((count, replacement)) => {
                    turned.extend(replacement.iter().map(String::as_str));
                    words = &words[count..];
                }
                None => {
                    turned.push(&word.shown);
                    words = &words[1..];
                }
            }
        }
        turned.join(" ")
    }

    fn replaced(&self, words: Vec<Word>) -> Vec<Word> {
        let mut replaced = Vec::with_capacity(words.len());
        let mut rest = words.as_slice();
        while let Some(word) = rest.first() {
            match self.script.pre.find(rest.iter().map(|word| word.plain.as_str())) {
                Some((count, words)) => {
                    replaced.extend(words.iter().map(|word| Word { shown: word.clone(), plain: word.to_lowercase() }));
                    rest = &rest[count..];
                }
                None => {
                    replaced.push(word.clone());
                    rest = &rest[1..];
                }
            }
        }
        replaced
    }

    /// The next answer of a rule without captures.
    fn plain_turn(&mut self, rule: &Rule) -> String {
        for _ in 0..rule.says.len() {
            if let Some(Say::Text(fragments)) = self.state.turn(rule) {
                return compose(fragments, &[]);
            }
        }
        String::new()
    }
}

fn phrase<'a>(words: impl Iterator<Item = &'a Word>) -> String {
    words.map(|word| word.plain.as_str()).collect::<Vec<_>>().join(" ")
}

/// The message cut at its punctuation, each clause cut into words; empty ones left out.
fn clauses(text: &str) -> Vec<Vec<Word>> {
    let text = &text[..read_bytes(text)];
    let shouted = !text.chars().any(char::is_lowercase);
    let mut clauses = vec![Vec::new()];
    for token in text.split_whitespace() {
        let mut rest = token;
        while !rest.is_empty() {
            let (word, ended) = match clause_end(rest) {
                Some((at, length)) => (&rest[..at], Some(at + length)),
                None => (rest, None),
            };
            let clause = clauses.last_mut().expect("there is always a clause");
            if let Some(word) = Word::read(word, clause.is_empty() || shouted)
                && clause.len() < CLAUSE_WORDS_MAX
            {
                clause.push(word);
            }
            if ended.is_some() {
                clauses.push(Vec::new());
            }
            rest = &rest[ended.unwrap_or(rest.len())..];
        }
    }
    clauses.retain(|clause| !clause.is_empty());
    clauses
}

fn read_bytes(text: &str) -> usize {
    let ends = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    ends.take_while(|end| *end <= TEXT_BYTES_MAX).last().unwrap_or(0)
}

/// Where the token's first mark stands that ends a clause, and how long it is. `3.5` and `12:30` hold none.
fn clause_end(token: &str) -> Option<(usize, usize)> {
    let ends = |(at, mark): &(usize, char)| match mark {
        '!' | '?' | ';' | '。' | '、' | '，' | '！' | '？' | '；' | '…' | '—' => true,
        '.' | ',' | ':' => !token[at + mark.len_utf8()..].starts_with(char::is_alphanumeric),
        _ => false,
    };
    token.char_indices().find(ends).map(|(at, mark)| (at, mark.len_utf8()))
}

impl Word {
    /// None where the token holds no letter. A first word's capital is the sentence's, not its own.
    fn read(token: &str, capital_means_nothing: bool) -> Option<Self> {
        let token = token.trim_matches(|letter: char| !letter.is_alphanumeric()).replace('’', "'");
        let plain = token.to_lowercase();
        let shown = if capital_means_nothing { plain.clone() } else { token };
        (!plain.is_empty()).then_some(Self { shown, plain })
    }
}

fn compose(fragments: &[Fragment], captures: &[String]) -> String {
    let mut text = String::new();
    for fragment in fragments {
        match fragment {
            Fragment::Text(own) => text.push_str(own),
            Fragment::Capture(index) => text.push_str(captures.get(*index).map_or("", String::as_str)),
        }
    }
    tidy(&text)
}

/// Single spaces, none before a mark (an empty capture leaves one), and a capital first.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !tidy.is_empty() && !word.starts_with(['.', ',', '?', '!', ';']) {
            tidy.push(' ');
        }
        tidy.push_str(word);
    }
    let mut letters = tidy.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => tidy,
    }
}

#[cfg(test)]
mod tests {
    use klatch_actors::responder::MEMORY_BYTES_MAX;
    use proptest::prelude::*;

    use super::super::tests::ask;
    use super::*;

    fn built_in() -> Eliza {
        Eliza::new(Script::parse(BUILT_IN_SCRIPT).expect("the built-in script is right"))
    }

    fn scripted(lines: &str) -> Eliza {
        let frame = "hello: Welcome.\nbye: Bye one.\nbye: Bye two.\nquit: bye, see you\n";
        let none = "none:\nsay: Go on.\nsay: I see.\n";
        Eliza::new(Script::parse(&format!("{frame}{lines}\n{none}")).expect("the script is right"))
    }

    fn turn(eliza: &Eliza, memory: &mut Option<Vec<u8>>, text: &str) -> String {
        let mut asked = ask(text);
        asked.memory = memory.take();
        let (reply, end) = eliza.said(&asked);
        *memory = end.memory;
        reply.expect("eliza always answers")
    }

    /// Lines `> what is said` and, below each, the answer; one conversation.
    fn check(eliza: &Eliza, transcript: &str) {
        let mut memory = None;
        let mut answer = String::new();
        for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.strip_prefix('>') {
                Some(said) => answer = turn(eliza, &mut memory, said.trim()),
                None => assert_eq!(answer, line),
            }
        }
    }

    #[test]
    fn a_conversation_with_the_built_in_script() {
        check(
            &built_in(),
            "> Hello!
             Hello. What would you like to talk about?
             > I am sad these days.
             I am sorry to hear that you are sad.
             > My sister never listens to me
             Tell me more about your sister.
             > Because I'm younger, I think.
             Is that the true reason?
             > I need your help
             What would it mean to you to have my help?
             > Do you remember Paris?
             Did you believe that Paris would slip my mind?
             > Hmm
             Let us go back to something: your sister never listens to you.
             > Hmm
             I am not sure that I follow. Please go on.
             > You are a computer!
             Do machines make you uneasy?
             > Everybody hates me
             Really, everybody?
             > goodbye
             Goodbye. I enjoyed our talk.",
        );
    }

    #[test]
    fn an_empty_first_message_is_greeted() {
        check(&scripted(""), ">\nWelcome.\n>\nGo on.");
    }

    #[test]
    fn a_message_that_is_all_quit_words_gets_a_farewell() {
        check(&scripted(""), "> Bye!\nBye one.\n> see you.\nBye two.\n> bye, bye\nGo on.");
    }

    #[test]
    fn answers_take_turns() {
        check(&scripted("key: a\nmatch: *\nsay: 1\nsay: 2"), "> a\n1\n> a\n2\n> a\n1");
    }

    #[test]
    fn the_keyword_of_the_highest_rank_answers() {
        let eliza =
            scripted("key: a 1\nmatch: *\nsay: low\nkey: b 9\nmatch: *\nsay: high\nkey: c 9\nmatch: *\nsay: later");
        check(&eliza, "> a c b\nLater\n> a b c\nHigh\n> a\nLow");
    }

    #[test]
    fn the_first_clause_with_a_keyword_answers() {
        check(
            &scripted("key: a\nmatch: + a +\nsay: (1)/(2)\nmatch: *\nsay: all"),
            "> hm, x a y; a. b a c\nX/y\n> ok. 3.5 a 12:30\n3.5/12:30",
        );
    }

    #[test]
    fn words_are_replaced_before_and_after() {
        let eliza = scripted(
            "pre: i am = i'm\npost: my = your\npost: i'm = you are\nkey: i'm\nmatch: * i'm + if *\nsay: (2)/(3)?",
        );
        check(&eliza, "> I am fond of MY dog if I am awake\nFond of your dog/you are awake?");
    }

    #[test]
    fn a_key_can_lead_to_another_or_to_the_next() {
        let eliza = scripted(
            "key: a 3\nmatch: a *\ngoto: c\nmatch: *\nnext:\nkey: b 2\nmatch: *\nsay: b\nkey: c\nmatch: *\nsay: c",
        );
        check(&eliza, "> a b\nC\n> b a\nB");
    }

    #[test]
    fn a_circle_of_keys_is_left() {
        check(&scripted("key: a\nmatch: *\ngoto: b\nkey: b\nmatch: *\ngoto: a"), "> a\nGo on.");
    }

    #[test]
    fn it_comes_back_to_what_was_said_when_no_keyword_is_found() {
        let lines =
            "key: my\nmatch: *\nsay: Yes?\nkey: b 9\nmatch: *\nsay: b\nmemory: my\nmatch: * my +\nsay: Then your (2).";
        check(
            &scripted(lines),
            "> my cat
             Yes?
             > my dog
             Yes?
             > b my horse
             B
             > hm
             Then your cat.
             > hm
             Then your dog.
             > hm
             Go on.",
        );
    }

    #[test]
    fn a_class_of_words_is_a_keyword_and_a_pattern() {
        let lines = "class: kin = mother, father\nkey: @kin\nmatch: * @kin *\nsay: Your (2)?";
        check(&scripted(lines), "> oh Father dear\nYour Father?\n> the mother\nYour mother?");
    }

    #[test]
    fn an_empty_capture_leaves_no_gap_and_curly_apostrophes_are_apostrophes() {
        let lines = "key: i'm\nmatch: * i'm *\nsay: are you (2) ?";
        check(&scripted(lines), "> I’m\nAre you?\n> I’M TIRED\nAre you tired?");
    }

    #[test]
    fn an_owner_that_takes_over_finds_the_same_words() {
        let eliza = built_in();
        let mut asked = ask("I need a holiday");
        let (whole, end) = eliza.said(&asked);
        let whole = whole.expect("an answer");
        asked.partial = whole[..9].to_owned();
        assert_eq!(eliza.said(&asked), (Some(whole[9..].to_owned()), end.clone()));
        asked.partial = whole;
        assert_eq!(eliza.said(&asked), (None, end));
        asked.partial = "Something else".into();
        assert_eq!(eliza.said(&asked).1.incomplete, Some(Incomplete::TakenOver));
    }

    #[test]
    fn max_output_tokens_cuts_the_answer() {
        let mut asked = ask("zzz");
        asked.request = r#"{"max_output_tokens":1}"#.into();
        let (reply, end) = scripted("").said(&asked);
        assert_eq!((reply.as_deref(), end.incomplete), (Some("Go "), Some(Incomplete::MaxOutputTokens)));
    }

    #[test]
    fn memory_that_is_not_its_own_is_as_good_as_none() {
        let eliza = scripted("");
        let own = State { begun: true, remarks: ["x".to_owned()].into(), ..State::default() };
        let fingerprint = eliza.script.fingerprint;
        assert_eq!(State::decode(&own.encode(fingerprint), fingerprint), own);
        assert_eq!(State::decode(&own.encode(fingerprint), fingerprint + 1), State::default());
        assert_eq!(State::decode(b"of another responder", fingerprint), State::default());
        assert_eq!(State::decode(&own.encode(fingerprint)[..8], fingerprint), State::default());
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let turns = (0..RULES_MAX as u16).map(|rule| (rule, 1)).collect();
        let mut state = State { turns, ..State::default() };
        for _ in 0..2 * REMARKS_MAX {
            state.remark("x".repeat(REMARK_BYTES_MAX));
            state.remark("x".repeat(REMARK_BYTES_MAX + 1));
        }
        assert_eq!(state.remarks.len(), REMARKS_MAX);
        assert!(state.encode(0).len() <= MEMORY_BYTES_MAX);
    }

    #[test]
    fn a_huge_message_is_read_up_to_its_limit() {
        let eliza = built_in();
        let reply = turn(&eliza, &mut None, &"my dog ".repeat(100_000));
        assert!(reply.len() < 2 * TEXT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn whatever_is_said_it_answers(texts in proptest::collection::vec(any::<String>(), 1..6)) {
            let (eliza, mut memory) = (built_in(), None);
            for text in texts {
                prop_assert!(!turn(&eliza, &mut memory, &text).trim().is_empty());
                prop_assert!(memory.as_ref().is_some_and(|memory| memory.len() <= MEMORY_BYTES_MAX));
            }
        }

        #[test]
        fn whatever_words_are_said_it_answers(
            words in proptest::collection::vec("(i|i'm|you|you're|my|your|mother|like|want|if|remember|was|no|why|can't|am|never|,|[a-z]{1,4})", 0..14)
        ) {
            let reply = turn(&built_in(), &mut None, &words.join(" "));
            prop_assert!(!reply.contains("  ") && !reply.trim().is_empty());
            prop_assert!(!reply.starts_with(char::is_lowercase));
        }

        #[test]
        fn whatever_is_remembered_it_answers(memory in proptest::collection::vec(any::<u8>(), 0..64), turns in 0u8..9) {
            let eliza = built_in();
            let turns = (0..300).map(|rule| (rule, turns.wrapping_mul(31))).collect();
            let own = State { begun: true, turns, ..State::default() };
            let mut bytes = own.encode(eliza.script.fingerprint);
            bytes.extend(memory);
            for text in ["my mother", "I am sad", "zzz"] {
                prop_assert!(!turn(&eliza, &mut Some(bytes.clone()), text).is_empty());
            }
        }
    }
}
