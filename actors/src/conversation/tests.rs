//! Lives of a conversation, as scripts: each line is what happens, an arrow, and what follows. The same `decide` runs in
//! production.

mod telling;

use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::event::{Call, Created, KeyUse, Parameters};
use klatch_protocol::trace::TraceContext;
use klatch_protocol::turn::Change;
use klatch_protocol::{Body, ClaimToken, ConversationId, Event, Item, Mark, Outcome, State, Turn, WebhookId};

use super::decide::{Catalog, Conversation, Effect, Fixed, Found, GivenUp, Input, Look, Row, Traits};
use crate::limits::Limits;
use crate::peers::PeerId;
use crate::request::{Answer, Caller, OnBusy, Refusal, Request, Submit, Wait};
use crate::responder::{Answered, End, ResponderError, Said};
use crate::store::{LogEnd, StoreError};
use crate::trace::Traced;
use crate::webhooks::{NotTold, Webhook};

type Core = Conversation<String>;

const ID: ConversationId = ConversationId([1; 16]);

/// What a script's log holds: entries that were appended survive a restart, as they would.
struct World {
    core: Core,
    now_ms: u64,
    incarnation: u64,
    log: Vec<Arc<klatch_protocol::Entry>>,
    pending: Option<Arc<klatch_protocol::Entry>>,
    limits: Limits,
    crashes: u32,
    shared: bool,
    webhooks: Vec<Webhook>,
    all_read: bool,
}

fn caller(name: &str) -> Caller {
    Caller { tenant: "acme".into(), subject: name.into() }
}

fn core(incarnation: u64, claims: u64, crashes: u32, shared: bool, limits: &Limits, webhooks: &[Webhook]) -> Core {
    let slow = Traits { history_items: 0, at_once: false };
    let catalog: Catalog = [
        ("slow".to_owned(), slow),
        ("echo".to_owned(), Traits { at_once: true, ..slow }),
        ("model".to_owned(), Traits { history_items: 10, ..slow }),
    ]
    .into();
    Conversation::new(Fixed {
        conversation: ID,
        node: "a".into(),
        incarnation,
        view: 1,
        token: ClaimToken(u128::from(claims)),
        limits: Arc::new(limits.clone()),
        catalog: Arc::new(catalog),
        webhooks: webhooks.into(),
        retention_ms: None,
        crashes,
        shared,
    })
}

impl World {
    fn new(limits: Limits, shared: bool) -> Self {
        let core = core(1, 0, 0, shared, &limits, &[]);
        let (log, webhooks) = (Vec::new(), Vec::new());
        let (now_ms, incarnation, crashes, all_read) = (1_000, 1, 0, true);
        Self { core, now_ms, incarnation, log, pending: None, limits, crashes, shared, webhooks, all_read }
    }

    fn found(&self) -> Found {
        let Some(last) = self.log.last() else { return Found::Absent };
        let state = Box::new(State::replay(self.log.iter().map(|entry| &**entry)));
        let position = last.position.claim();
        let token = ClaimToken(u128::from(position.epoch));
        Found::Claimed { state, end: LogEnd { position, token }, entries: self.log.len(), bytes: 0 }
    }

    fn input(&mut self, line: &str) -> Input<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| words.get(place).map_or(0, |word| word.parse().expect("a number"));
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let ask = |request| Input::Asked {
            request,
            reply: Some(words[1].to_owned()),
            admitted: true,
            traced: Traced::default(),
        };
        match words[0] {
            "activated" => Input::Activated(self.found()),
            "create" => ask(Request::Create(Box::new(created(option("key"))))),
            "create-implicit" => ask(Request::Create(Box::new(Created { explicit: false, ..created(option("key")) }))),
            "submit" => Input::Asked {
                request: Request::Submit(Box::new(submit(&words, option))),
                reply: Some(words[1].to_owned()),
                admitted: option("node") != Some("full"),
                traced: traced(option("trace")),
            },
            "add" => {
                ask(Request::AddItems { caller: caller("ann"), items: vec![item(words[2])], key: key(option("key")) })
            }
            "cancel" => ask(Request::Cancel { caller: caller("ann"), turn: number(2) }),
            "drop" => ask(Request::DeleteResponse { caller: caller("ann"), turn: number(2) }),
            "delete" => ask(Request::Delete { caller: caller("ann") }),
            "watch" => {
                ask(Request::Watch { caller: caller("ann"), turn: number(2), have: Mark::default(), bytes_max: 999 })
            }
            "lost" => Input::Asked {
                request: Request::Undelivered { turn: number(1) },
                reply: None,
                admitted: true,
                traced: Traced::default(),
            },
            "history" => Input::HistoryLoaded { turn: number(1), items: Ok(Vec::new()) },
            "say" => Input::Said { turn: number(1), attempt: 1, said: Ok(Said::Text(words[2].to_owned())) },
            "say-late" => Input::Said { turn: number(1), attempt: 9, said: Ok(Said::Text(words[2].to_owned())) },
            "tool" => {
                let call = Call { call_id: "c".into(), name: words[2].into(), arguments: "{}".into() };
                Input::Said { turn: number(1), attempt: 1, said: Ok(Said::Call(call)) }
            }
            "end" => {
                Input::Said { turn: number(1), attempt: number(2).max(1) as u32, said: Ok(Said::End(End::default())) }
            }
            "fail" => {
                let error = ResponderError { code: "server_error".into(), message: "no".into() };
                Input::Said { turn: number(1), attempt: 1, said: Err(error) }
            }
            "answer" => Input::AnsweredAtOnce {
                turn: number(1),
                answered: Answered { pieces: [words[2]].into(), end: End::default() },
            },
            "batch" => Input::BatchDue,
            "sign" => Input::SignDue,
            "row-removed" => Input::OpenRowRemoved,
            "queue" => Input::QueueDue,
            "free" => Input::Looked(Look::Free { open: option("open").is_some(), end: None }),
            "absent" => Input::Looked(Look::Absent),
            "elsewhere" => Input::Looked(Look::Elsewhere(PeerId { name: "b".into(), incarnation: 1 })),
            "wake" => ask(Request::Wake),
            "settle" => {
                Input::Asked { request: Request::Settle, reply: None, admitted: true, traced: Traced::default() }
            }
            "expire" => ask(Request::Expire { retention_ms: None }),
            "still-mine" => {
                let last = self.log.last().map(|last| LogEnd { position: last.position, token: last.token });
                Input::EndChecked(Ok(last))
            }
            "another's" => {
                let position = self.log.last().expect("something was written").position.claim();
                Input::EndChecked(Ok(Some(LogEnd { position, token: ClaimToken(9) })))
            }
            "saved" => {
                self.log.extend(self.pending.take());
                Input::Appended
            }
            "fenced" => Input::NotAppended(StoreError::Fenced(None)),
            "unknown" => Input::NotAppended(StoreError::Unknown("timeout".into())),
            "down" => Input::NotAppended(StoreError::Unavailable("down".into())),
            "written" => {
                self.log.extend(self.pending.take());
                let last = self.log.last().expect("something was written");
                Input::EndRead(Ok(Some(LogEnd { position: last.position, token: last.token })))
            }
            "not-written" => {
                let last = self.log.last().map(|last| LogEnd { position: last.position, token: last.token });
                Input::EndRead(Ok(last))
            }
            "compacted" => Input::Compacted,
            "told" => Input::Told { webhook: WebhookId(number(1)), turn: number(2), told: Ok(()) },
            "not-told" => {
                let told = Err(NotTold("it said 500".into()));
                Input::Told { webhook: WebhookId(number(1)), turn: number(2), told }
            }
            "telling-due" => Input::TellingDue(WebhookId(number(1))),
            "put-off" => Input::PutOff(Ok(())),
            "not-put-off" => Input::PutOff(Err(StoreError::Unavailable("down".into()))),
            "close" => Input::Close,
            other => panic!("there is no input {other:?}"),
        }
    }

    fn activate_again(&mut self) {
        let claims = self.log.len() as u64;
        self.core = core(self.incarnation, claims, self.crashes, self.shared, &self.limits, &self.webhooks);
    }

    fn step(&mut self, line: &str) -> String {
        if let Some(ms) = line.strip_prefix("wait ") {
            self.now_ms += ms.parse::<u64>().expect("ms");
            return String::new();
        }
        if let Some(incarnation) = line.strip_prefix("restart ") {
            self.incarnation = incarnation.parse().expect("an incarnation");
            self.crashes = 0;
            self.activate_again();
            return String::new();
        }
        if line == "crash" {
            self.crashes += 1;
            self.activate_again();
            return String::new();
        }
        let input = self.input(line);
        self.core.all_read_untold(self.all_read);
        let effects = self.core.decide(self.now_ms, input);
        for effect in &effects {
            if let Effect::Append { entry, .. } = effect {
                self.pending = Some(entry.clone());
            }
        }
        effects.iter().map(show).filter(|shown| !shown.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

fn check(script: &str) {
    check_within(Limits::default(), script);
}

fn check_within(limits: Limits, script: &str) {
    run(World::new(limits, false), script);
}

/// Other nodes use the same store.
fn check_shared(script: &str) {
    run(World::new(Limits::default(), true), script);
}

fn run(mut world: World, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("->").unwrap_or((line, ""));
        let said = world.step(input.trim());
        assert_eq!(said, expected.trim(), "after {:?} of:{script}", input.trim());
    }
}

fn item(text: &str) -> Item {
    Item { ordinal: 0, client_id: None, body: Body::user(text).into() }
}

fn key(name: Option<&str>) -> Option<KeyUse> {
    name.map(|name| KeyUse { key: [name.as_bytes()[0]; 16], fingerprint: [0; 16] })
}

fn created(name: Option<&str>) -> Created {
    Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![],
        ttl_seconds: None,
        explicit: true,
        items: vec![],
        parent: None,
        key: key(name),
    }
}

/// `submit REPLY MODEL TEXT`, with `key=`, `busy=`, `wait=`, `by=`, `body=` and `retry=` behind.
fn submit<'a>(words: &[&str], option: impl Fn(&str) -> Option<&'a str>) -> Submit {
    Submit {
        caller: caller(option("by").unwrap_or("ann")),
        input: vec![item(words[3])],
        parameters: Parameters {
            model: words[2].into(),
            background: false,
            store: true,
            conversation_named: true,
            previous: None,
            cancel_on_disconnect: false,
            start_by_ms: option("start-by").map(|ms| ms.parse().expect("ms")),
            request: "{}".into(),
        },
        on_busy: match option("busy") {
            None => OnBusy::Enqueue,
            Some("reject") => OnBusy::Reject,
            Some("interrupt") => OnBusy::Interrupt,
            Some("rollback") => OnBusy::Rollback,
            Some(other) => panic!("there is no on_busy {other:?}"),
        },
        key: option("key").map(|name| [name.as_bytes()[0]; 16]),
        attempt: option("attempt").map(|name| [name.as_bytes()[0]; 16]),
        fingerprint: [option("body").map_or(0, |body| body.as_bytes()[0]); 16],
        retry: option("retry").is_some(),
        wait: if option("wait") == Some("accepted") { Wait::Accepted } else { Wait::Ended },
        create: None,
        chain: None,
    }
}

fn show(effect: &Effect<String>) -> String {
    match effect {
        Effect::Look => "look".into(),
        Effect::Claim(_) => "claim".into(),
        Effect::WakeForQueue(after) => format!("look at the queue in {}", after.as_millis()),
        Effect::WakeForSign(after) => format!("sign after {} s", after.as_secs()),
        Effect::Append { entry, rows, traced } => {
            let events: Vec<String> = entry.events.iter().map(show_event).collect();
            let rows: String = rows.iter().flat_map(|row| [show_row(row), " "]).collect();
            let traced: String = traced.iter().map(show_traced).collect();
            format!("{rows}append {}-{} {}{traced}", entry.position.epoch, entry.position.seq, events.join("+"))
        }
        Effect::Write(row) => format!("write {}", show_row(row)),
        Effect::ReadEnd => "read end".into(),
        Effect::CheckEnd => "check end".into(),
        Effect::Compact { compaction } => {
            format!("compact {} items {} turns", compaction.settled.items.len(), compaction.settled.turns.len())
        }
        Effect::LoadHistory { turn, .. } => format!("load history {turn}"),
        Effect::Call(ask) => {
            format!("call {}#{}{}{}", ask.turn, ask.attempt, partial(&ask.partial), show_traced(&ask.traced))
        }
        Effect::AnswerAtOnce(ask) => format!("answer {}", ask.turn),
        Effect::StopCall => "stop call".into(),
        Effect::Release(pieces) => format!("release {pieces}"),
        Effect::WakeForBatch(after) => format!("wake in {}", after.as_millis()),
        Effect::Reply(reply, answer) => format!("{reply}: {}", show_answer(answer)),
        Effect::RemoveOpenRow { .. } => "remove open row".into(),
        Effect::ReadTurn { turn, reply, .. } => format!("{reply}: read turn {turn}"),
        Effect::TurnOver { .. } => String::new(),
        Effect::Tell { webhook, end } => format!("tell {} of {}", webhook.0, end.untold.turn),
        Effect::WakeToTell { webhook, after } => format!("tell {} in {} s", webhook.0, after.as_secs()),
        Effect::NotTold { .. } => String::new(),
        Effect::GaveUpTelling { webhook, turn, why, .. } => format!("give up telling {} of {turn}: {why:?}", webhook.0),
        Effect::PutOff { at_ms } => format!("put off to {at_ms}"),
        Effect::AskToClose => "ask to close".into(),
        Effect::StillBusy => "still busy".into(),
        Effect::Closed => "closed".into(),
        Effect::GiveUp(GivenUp::Idle) => "give up".into(),
        Effect::GiveUp(GivenUp::Unfinished) => "give up unfinished".into(),
        Effect::GiveUp(GivenUp::NotActivated) => "give up unread".into(),
    }
}

fn traced(name: Option<&str>) -> Traced {
    let context = |name: &str| TraceContext { trace: [name.as_bytes()[0]; 16], span: [1; 8], flags: 1 };
    name.map(|name| Traced::passed_on(context(name))).unwrap_or_default()
}

fn show_traced(traced: &Traced) -> String {
    traced.context().map(|context| format!(" in {}", char::from(context.trace[0]))).unwrap_or_default()
}

fn partial(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" behind {text:?}") }
}

fn show_row(row: &Row) -> &'static str {
    match row {
        Row::Index(_) => "index",
        Row::Unindex(_) => "unindex",
        Row::Open { .. } => "open",
        Row::NotOpen { .. } => "not-open",
        Row::Due { .. } => "due",
    }
}

fn show_event(event: &Event) -> String {
    match event {
        Event::Claimed { .. } => "claimed".into(),
        Event::Created(_) => "created".into(),
        Event::TurnAccepted(accepted) => format!("accepted{}", accepted.turn),
        Event::AttemptStarted { turn, attempt } => format!("attempt{turn}#{}", attempt.n),
        Event::Delta { turn, pieces } => format!("delta{turn}:{}", pieces.iter().collect::<Vec<_>>().join("|")),
        Event::ToolCall { turn, .. } => format!("call{turn}"),
        Event::TurnEnded { turn, outcome, .. } => format!("{}{turn}", show_outcome(outcome)),
        Event::ItemsAdded { .. } => "added".into(),
        Event::ResponseDeleted { turn } => format!("dropped{turn}"),
        Event::Deleted => "deleted".into(),
        Event::AtWork => "at-work".into(),
        Event::ToTell(untold) => format!("to-tell{}", untold.turn),
        Event::Told { turn, to } => format!("told{turn}:{}", to.0),
        other => format!("{other:?}"),
    }
}

fn show_outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Incomplete { .. } => "incomplete",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled { keep: true } => "cancelled",
        Outcome::Cancelled { keep: false } => "undone",
    }
}

fn show_turn(turn: &Turn) -> String {
    let status = turn.outcome.as_ref().map_or("open", show_outcome);
    format!("turn {} {status} {:?}", turn.accepted.turn, turn.text())
}

fn show_answer(answer: &Result<Answer, Refusal>) -> String {
    match answer {
        Ok(Answer::Conversation { replayed, .. }) => format!("conversation{}", again(*replayed)),
        Ok(Answer::Turn { turn, replayed }) => show_turn(turn) + again(*replayed),
        Ok(Answer::Items { ordinals, replayed }) => format!("items {ordinals:?}{}", again(*replayed)),
        Ok(Answer::News(changes)) => {
            let changes = changes.iter().map(|change| match change {
                Change::Attempt(_) => "attempt".to_owned(),
                Change::Pieces { pieces } => pieces.iter().collect::<Vec<_>>().join("|"),
                Change::Call(_) => "call".to_owned(),
                Change::Ended { outcome, .. } => show_outcome(outcome).to_owned(),
            });
            format!("news {}", changes.collect::<Vec<_>>().join(" "))
        }
        Ok(Answer::NotOpen) => "not open".into(),
        Ok(Answer::Done) => "done".into(),
        Ok(Answer::DueAt(at_ms)) => format!("due at {at_ms}"),
        Ok(Answer::Forked { .. }) => "forked".into(),
        Err(Refusal::NotFound(what)) => format!("no {what}"),
        Err(Refusal::Busy { what, .. }) => format!("{what} is full"),
        Err(Refusal::Locked) => "locked".into(),
        Err(Refusal::KeyReused) => "key reused".into(),
        Err(Refusal::Moved) => "moved".into(),
        Err(Refusal::Lost) => "lost".into(),
        Err(Refusal::Elsewhere { owner }) => format!("ask {owner}"),
        Err(Refusal::Unavailable(_)) => "unavailable".into(),
        Err(Refusal::Invalid { param, .. }) => format!("invalid {param}"),
    }
}

fn again(replayed: bool) -> &'static str {
    if replayed { " again" } else { "" }
}

#[test]
fn nothing_is_answered_or_shown_before_it_is_durable() {
    check(
        "activated                        ->
         create a                         -> index append 1-0 claimed+created
         submit b slow hello wait=accepted ->
         saved                            -> a: conversation, open append 1-1 accepted0+attempt0#1
         watch w 0                        ->
         saved                            -> b: turn 0 open \"\", w: news attempt, call 0#1
         say 0 hi                         -> append 1-2 delta0:hi
         watch w 0                        -> w: news attempt
         say 0 you                        ->
         saved                            -> release 1, wake in 20
         watch w 0                        -> w: news attempt hi
         end 0                            -> append 1-3 delta0:you+completed0
         submit c slow more               ->
         saved                            -> release 1, append 1-4 accepted1+attempt1#1
         watch w 0                        -> w: news attempt hi|you completed",
    );
}

#[test]
fn a_reply_at_once_is_saved_in_a_single_append() {
    check(
        "activated              ->
         create a               -> index append 1-0 claimed+created
         saved                  -> a: conversation
         submit b echo hello    -> answer 0
         answer 0 hello         -> append 1-1 accepted0+attempt0#1+delta0:hello+completed0
         submit c echo again    -> answer 1
         answer 1 again         ->
         saved                  -> b: turn 0 completed \"hello\", append 1-2 accepted1+attempt1#1+delta1:again+completed1
         saved                  -> c: turn 1 completed \"again\"",
    );
}

#[test]
fn turns_are_answered_in_the_order_in_which_they_came() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         submit c slow two   ->
         submit d echo three ->
         saved               -> call 0#1, append 1-2 accepted1+accepted2
         saved               ->
         end 0               -> append 1-3 completed0+attempt1#1
         saved               -> b: turn 0 completed \"\", call 1#1
         end 1               -> append 1-4 completed1+attempt2#1
         saved               -> c: turn 1 completed \"\", call 2#1",
    );
}

#[test]
fn a_turn_is_traced_from_its_acceptance_to_its_end() {
    check(
        "activated                       ->
         create a                        -> index append 1-0 claimed+created
         saved                           -> a: conversation
         submit b slow one trace=x       -> open append 1-1 accepted0+attempt0#1 in x
         submit c slow two               ->
         submit d echo three trace=y     ->
         submit e slow no trace=z by=bob ->
         saved                           -> call 0#1 in x, append 1-2 accepted1+accepted2 in y
         say 0 hi                        ->
         saved                           -> e: no conversation, append 1-3 delta0:hi
         saved                           -> release 1
         end 0                           -> append 1-4 completed0+attempt1#1 in x
         saved                           -> b: turn 0 completed \"hi\", call 1#1
         end 1                           -> append 1-5 completed1+attempt2#1
         saved                           -> c: turn 1 completed \"\", call 2#1 in y",
    );
}

#[test]
fn a_busy_conversation_does_what_the_turn_asks_for() {
    check(
        "activated                           ->
         create a                            -> index append 1-0 claimed+created
         saved                               -> a: conversation
         submit b slow one                   -> open append 1-1 accepted0+attempt0#1
         saved                               -> call 0#1
         submit c slow two busy=reject       -> c: locked
         say 0 hi                            -> append 1-2 delta0:hi
         saved                               -> release 1
         submit d slow two busy=interrupt    -> stop call, append 1-3 incomplete0+accepted1+attempt1#1
         say 0 late                          ->
         saved                               -> b: turn 0 incomplete \"hi\", call 1#1
         submit e slow three busy=rollback   -> stop call, append 1-4 undone1+accepted2+attempt2#1
         saved                               -> d: turn 1 undone \"\", call 2#1",
    );
}

#[test]
fn the_same_key_is_the_same_turn_whenever_it_comes() {
    check(
        "activated                        ->
         create a                         -> index append 1-0 claimed+created
         saved                            -> a: conversation
         submit b slow one key=k          -> open append 1-1 accepted0+attempt0#1
         submit c slow one key=k          ->
         submit d slow two key=k body=x   ->
         saved                            -> call 0#1, d: key reused
         end 0                            -> append 1-2 completed0
         saved                            -> b: turn 0 completed \"\", c: turn 0 completed \"\" again
         submit e slow one key=k          -> e: turn 0 completed \"\" again
         add f item key=k                 -> f: key reused
         restart 2
         activated                        ->
         submit g slow one key=k          -> g: turn 0 completed \"\" again",
    );
}

#[test]
fn an_edge_that_lost_an_answer_finds_the_turn_again() {
    check(
        "activated                     ->
         create a                      -> index append 1-0 claimed+created
         saved                         -> a: conversation
         submit b slow one attempt=x   -> open append 1-1 accepted0+attempt0#1
         submit c slow one attempt=x   ->
         submit d slow one attempt=y   ->
         saved                         -> call 0#1, append 1-2 accepted1
         saved                         ->
         end 0                         -> append 1-3 completed0+attempt1#1
         saved                         -> b: turn 0 completed \"\", c: turn 0 completed \"\", call 1#1",
    );
}

#[test]
fn a_retry_without_a_key_counts_only_where_the_answer_was_lost() {
    check(
        "activated                            ->
         create a                             -> index append 1-0 claimed+created
         saved                                -> a: conversation
         submit b slow one                    -> open append 1-1 accepted0+attempt0#1
         saved                                -> call 0#1
         submit c slow one retry=yes          ->
         end 0                                -> append 1-2 completed0
         saved                                -> b: turn 0 completed \"\", c: turn 0 completed \"\" again
         submit d slow one retry=yes          -> append 1-3 accepted1+attempt1#1
         saved                                -> call 1#1
         end 1                                -> append 1-4 completed1
         saved                                -> d: turn 1 completed \"\"
         lost 1                               ->
         submit e slow one                    -> append 1-5 accepted2+attempt2#1
         saved                                -> call 2#1
         end 2                                -> append 1-6 completed2
         saved                                -> e: turn 2 completed \"\"
         submit f slow one retry=yes          -> f: turn 1 completed \"\" again
         wait 600001
         submit g slow one retry=yes          -> append 1-7 accepted3+attempt3#1",
    );
}

#[test]
fn a_cancelled_turn_ends_now_and_keeps_what_was_shown() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         submit c slow two   ->
         saved               -> call 0#1, append 1-2 accepted1
         saved               ->
         say 0 hi            -> append 1-3 delta0:hi
         say 0 more          ->
         cancel x 0          -> stop call
         saved               -> release 1, append 1-4 cancelled0+attempt1#1
         saved               -> b: turn 0 cancelled \"hi\", x: turn 0 cancelled \"hi\" again, call 1#1
         cancel y 0          -> y: turn 0 cancelled \"hi\" again
         cancel z 7          -> z: no response",
    );
}

#[test]
fn a_fenced_owner_refuses_all_that_it_still_owes_and_stops() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         watch w 0           -> w: news attempt
         submit c slow two   -> append 1-2 accepted1
         submit d slow three ->
         fenced              -> b: lost, c: moved, d: moved, stop call, give up unfinished
         submit e slow four  -> e: moved",
    );
}

#[test]
fn a_turn_whose_end_was_lost_is_taken_up_again() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         end 0               -> append 1-2 completed0
         down                -> b: lost, stop call, give up unfinished",
    );
}

#[test]
fn an_append_of_unknown_outcome_is_resolved_before_anything_else() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo one   -> answer 0
         answer 0 one        -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         unknown             -> read end
         submit c echo two   -> answer 1
         answer 1 two        ->
         not-written         -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         unknown             -> read end
         written             -> b: turn 0 completed \"one\", append 1-2 accepted1+attempt1#1+delta1:two+completed1",
    );
}

#[test]
fn an_append_that_arrives_after_it_was_held_for_lost_is_not_told_as_undone() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo one   -> answer 0
         answer 0 one        -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         unknown             -> read end
         not-written         -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         fenced              -> read end
         written             -> b: turn 0 completed \"one\"",
    );
}

#[test]
fn a_new_owner_continues_behind_what_was_shown() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         say 0 hi            -> append 1-2 delta0:hi
         saved               -> release 1
         restart 2
         activated           -> append 2-1 attempt0#2
         watch w 0           -> w: news attempt hi
         saved               -> call 0#2 behind \"hi\"
         say-late 0 stale    ->
         end 0 2             -> append 2-2 completed0
         saved               -> ",
    );
}

#[test]
fn a_turn_that_crashes_its_conversation_twice_is_failed_and_the_next_one_runs() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         submit c slow two   ->
         saved               -> call 0#1, append 1-2 accepted1
         saved               ->
         crash
         activated           -> append 2-1 attempt0#2
         saved               -> call 0#2
         crash
         activated           -> append 3-1 failed0+attempt1#1
         saved               -> call 1#1",
    );
}

#[test]
fn a_turn_survives_any_deaths_of_its_node() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         restart 2
         activated           -> append 2-1 attempt0#2
         saved               -> call 0#2
         restart 3
         activated           -> append 3-1 attempt0#3
         saved               -> call 0#3",
    );
}

#[test]
fn a_model_gets_its_history_once_it_is_loaded() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b model one  -> open append 1-1 accepted0+attempt0#1
         saved               -> load history 0
         history 0           -> call 0#1
         end 0               -> append 1-2 completed0
         saved               -> b: turn 0 completed \"\"
         submit c model two  -> append 1-3 accepted1+attempt1#1
         saved               -> call 1#1",
    );
}

#[test]
fn strangers_find_nothing() {
    check(
        "activated                     ->
         submit x slow one             -> x: no conversation, ask to close
         create a                      -> index append 1-0 claimed+created
         saved                         -> a: conversation
         submit b slow one by=bob      -> b: no conversation
         submit c nonesuch one         -> c: invalid model
         close                         -> closed
         create d                      -> d: moved",
    );
}

#[test]
fn it_closes_when_nothing_is_open_and_only_then() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         close               -> still busy
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         close               -> still busy
         end 0               -> append 1-2 completed0
         saved               -> b: turn 0 completed \"\"
         close               -> remove open row
         row-removed         -> closed",
    );
}

#[test]
fn a_deleted_conversation_ends_what_runs_and_leaves_nothing() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         watch w 0           -> w: news attempt
         delete x            -> stop call, due append 1-2 deleted
         saved               -> write unindex, x: done, b: no response, compact 0 items 0 turns
         compacted           ->
         submit c slow two   -> c: no conversation
         create d            -> d: no conversation",
    );
}

#[test]
fn a_deletion_that_is_not_saved_leaves_its_turn_unfinished() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         say 0 hello         -> append 1-2 delta0:hello
         delete x            -> stop call
         saved               -> release 1, due append 1-3 deleted
         down                -> x: unavailable, b: lost, stop call, give up unfinished",
    );
}

#[test]
fn what_is_open_elsewhere_is_left_there_until_its_owner_is_gone() {
    check_shared(
        "submit a slow one   ->
         elsewhere           -> a: ask b.1
         watch w 0           -> w: ask b.1
         free open=yes       -> claim
         watch w 0           ->
         submit a slow one   ->
         absent              -> look
         absent              -> w: no conversation, ask to close, a: no conversation, ask to close",
    );
}

#[test]
fn that_there_is_nothing_is_told_only_to_who_asked_before_it_was_looked_at() {
    check_shared(
        "watch w 0           ->
         absent              -> look
         watch v 0           ->
         absent              -> look
         free                -> w: not open, v: not open, ask to close",
    );
    check_shared(
        "watch w 0           ->
         absent              -> look
         absent              -> w: no conversation, ask to close
         watch v 0           -> look
         absent              -> v: no conversation, ask to close
         wake k              -> look
         absent              -> k: done, ask to close
         create a            -> index append 1-0 claimed+created",
    );
    check_shared(
        "create a            ->
         watch w 0           ->
         absent              -> look
         absent              -> w: not open, index append 1-0 claimed+created
         saved               -> a: conversation",
    );
}

#[test]
fn what_a_row_tells_of_is_claimed_before_the_row_goes() {
    check_shared(
        "absent              -> ask to close
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         restart 2
         settle              ->
         free                -> claim
         activated           -> ask to close
         close               -> remove open row
         row-removed         -> closed",
    );
}

#[test]
fn what_meets_one_that_is_about_to_leave_comes_again() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         end 0               -> append 1-2 completed0
         saved               -> b: turn 0 completed \"\"
         close               -> remove open row
         submit c slow two   -> c: moved
         row-removed         -> closed
         submit d slow two   -> d: moved",
    );
}

#[test]
fn that_something_is_gone_is_told_once_its_deletion_is_durable() {
    let asked = "activated           ->
                 create a            -> index append 1-0 claimed+created
                 saved               -> a: conversation
                 delete x            -> stop call, due append 1-1 deleted
                 submit b slow one   ->
                 expire e            ->
                 watch w 0           ->";
    check(&format!(
        "{asked}\n saved -> write unindex, x: done, b: no conversation, e: done, w: no conversation, compact 0 items 0 turns"
    ));
    check(&format!(
        "{asked}\n down -> x: unavailable, b: unavailable, e: unavailable, w: unavailable, stop call, give up"
    ));
}

#[test]
fn nothing_is_claimed_for_who_only_looks() {
    check_shared(
        "watch w 0           ->
         wake k              ->
         free                -> w: not open, k: done, ask to close
         watch v 0           -> v: not open
         close               -> closed",
    );
    check_shared(
        "watch w 0           ->
         free                -> w: not open, ask to close
         create a            -> claim
         close               -> still busy
         activated           -> index append 1-0 claimed+created
         saved               -> a: conversation",
    );
}

#[test]
fn who_may_not_be_the_owner_any_more_knows_of_no_turn_only_after_an_append() {
    check_shared(
        "absent              -> ask to close
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         cancel b 0          -> append 1-1 at-work
         fenced              -> b: moved, stop call, give up",
    );
}

#[test]
fn an_owner_at_work_shows_it_where_others_might_take_over() {
    check_shared(
        "absent              -> ask to close
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> sign after 2 s, open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         sign                -> sign after 2 s
         sign                -> sign after 2 s, append 1-2 at-work
         saved               ->
         say 0 hi            -> append 1-3 delta0:hi
         sign                -> sign after 2 s
         saved               -> release 1
         end 0               -> append 1-4 completed0
         sign                ->
         saved               -> b: turn 0 completed \"hi\"",
    );
}

#[test]
fn one_that_was_woken_writes_its_row_all_the_same() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         wake w              -> check end, w: done
         submit b slow one   -> open append 1-1 accepted0+attempt0#1",
    );
}

#[test]
fn one_that_is_woken_with_nothing_open_looks_whether_it_is_the_owner_still() {
    let saved = "activated           ->
                 create a            -> index append 1-0 claimed+created
                 saved               -> a: conversation
                 wake w              -> check end, w: done";
    check(&format!("{saved}\n still-mine -> \n wake v -> check end, v: done"));
    check(&format!("{saved}\n another's -> stop call, give up unfinished"));
    check(&format!("{saved}\n submit b slow one -> open append 1-1 accepted0+attempt0#1\n another's -> "));
}

#[test]
fn the_queue_has_a_limit() {
    let limits = Limits { queue_per_conversation: 2, ..Limits::default() };
    check_within(
        limits,
        "activated                     ->
         create a                      -> index append 1-0 claimed+created
         saved                         -> a: conversation
         submit b slow one node=full   -> b: the node is full
         submit c slow one             -> open append 1-1 accepted0+attempt0#1
         submit d slow two             ->
         submit e slow three           -> e: the conversation's queue is full",
    );
}

#[test]
fn a_turn_that_waited_too_long_is_not_begun() {
    check(
        "activated                          ->
         create a                           -> index append 1-0 claimed+created
         saved                              -> a: conversation
         submit b slow one                  -> open append 1-1 accepted0+attempt0#1
         submit c slow two start-by=1500    -> look at the queue in 501
         saved                              -> call 0#1, append 1-2 accepted1
         saved                              ->
         wait 501
         queue                              -> append 1-3 failed1
         saved                              -> c: turn 1 failed \"\"
         end 0                              -> append 1-4 completed0
         saved                              -> b: turn 0 completed \"\"",
    );
}

#[test]
fn a_reply_over_its_limit_ends_incomplete() {
    let limits = Limits { reply_bytes: 4, batch_every: Duration::ZERO, ..Limits::default() };
    check_within(
        limits,
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         say 0 abcd          -> append 1-2 delta0:abcd
         saved               -> release 1
         say 0 e             -> stop call, append 1-3 delta0:e+incomplete0
         say 0 f             ->",
    );
}

#[test]
fn a_whole_answer_that_is_too_long_is_cut_as_well() {
    let limits = Limits { reply_bytes: 4, ..Limits::default() };
    check_within(
        limits,
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo hi    -> answer 0
         answer 0 four       -> append 1-1 accepted0+attempt0#1+delta0:four+completed0
         saved               -> b: turn 0 completed \"four\"
         submit c echo hi    -> answer 1
         answer 1 fives      -> append 1-2 accepted1+attempt1#1+delta1:fives+incomplete1
         saved               -> c: turn 1 incomplete \"fives\"",
    );
}

#[test]
fn waiting_for_the_activation_has_a_limit() {
    let limits = Limits { waiting_per_conversation: 1, ..Limits::default() };
    check_within(
        limits,
        "create a  ->
         create b  -> b: the conversation is full
         close     -> still busy
         activated -> index append 1-0 claimed+created",
    );
}

#[test]
fn what_is_finished_moves_to_its_lists_after_so_many_entries() {
    let limits = Limits { compact_after_entries: 3, ..Limits::default() };
    check_within(
        limits,
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo one   -> answer 0
         answer 0 one        -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         saved               -> b: turn 0 completed \"one\"
         submit c slow two   -> open append 1-2 accepted1+attempt1#1
         saved               -> call 1#1, compact 2 items 1 turns
         say 1 hi            ->
         compacted           -> append 1-4 delta1:hi
         cancel x 0          -> x: read turn 0",
    );
}

#[test]
fn a_deleted_response_leaves_its_conversation_unless_that_was_made_for_it() {
    check(
        "activated           ->
         create a            -> index append 1-0 claimed+created
         saved               -> a: conversation
         submit b slow one   -> open append 1-1 accepted0+attempt0#1
         saved               -> call 0#1
         drop x 0            -> stop call, append 1-2 undone0+dropped0
         saved               -> x: done, b: no response
         drop y 0            -> y: no response",
    );
    check(
        "activated           ->
         create-implicit a   -> append 1-0 claimed+created
         saved               -> a: conversation
         submit b echo one   -> answer 0
         answer 0 one        -> append 1-1 accepted0+attempt0#1+delta0:one+completed0
         saved               -> b: turn 0 completed \"one\"
         drop x 0            -> stop call, due append 1-2 deleted
         saved               -> write unindex, x: done, compact 0 items 0 turns",
    );
}
