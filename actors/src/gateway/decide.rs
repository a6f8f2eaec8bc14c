//! Where a request goes, and who must leave memory for it. Pure: `now_ms` is monotonic and passed in.
//!
//! A request goes to its shard here, or to the node that the view names. While views differ two nodes may both hold
//! themselves for the owner: the fence decides then, and a request that was passed on often enough is served where it is.
//!
//! All that is in memory on this node stands in one line, least recently used first. A passivation is a wish: who is
//! busy stays, and stands at the end of the line again.

use klatch_protocol::view::MemberStatus;
use klatch_protocol::{ConversationId, Shard};
use lru::LruCache;

use crate::membership::view::View;
use crate::peers::PeerId;
use crate::request::{Full, Refusal, Request};

/// A request is passed on from node to node so often; the last one serves it.
pub const HOPS_MAX: u8 = 2;

/// Nodes by which a peer is tried to be reached that this node does not reach.
const RELAYS_MAX: usize = 2;

/// While everyone in memory is busy the limit may be passed by so much before requests are refused.
pub const OVER_THE_LIMIT: usize = 1_024;

/// Passivations asked for at one request: more than one, so that a limit that was passed is reached again.
const PASSIVATIONS_AT_ONCE: usize = 2;

/// Conversations passivated at one tick, so that a tick stays short.
const PASSIVATED_AT_ONCE: usize = 4_096;

#[derive(Debug)]
pub enum Input<R> {
    Ask {
        asked: Asked<R>,
        /// The conversations in memory hold more bytes than they may.
        heavy: bool,
    },
    /// A conversation is in memory.
    Entered(ConversationId),
    /// Asked past the gateway since the last such word.
    Used(Vec<ConversationId>),
    Left(ConversationId),
    ShardGone(Shard),
    View(View),
    /// This life of the node is over: nothing here is owned any more.
    DropAll,
    /// The node is about to end: nothing new begins here.
    Close,
    /// Now and then: who was idle for too long goes, and all who can while the node gives everything away.
    Tick,
}

/// A request on its way.
#[derive(Debug, PartialEq)]
pub struct Asked<R> {
    pub conversation: ConversationId,
    pub request: Request,
    pub reply: Option<R>,
    /// Nodes that passed it on.
    pub hops: u8,
    /// Whom to ask, whoever should own it: an open turn is theirs, or they are to pass it on.
    pub direct: Option<PeerId>,
    /// It has gone by a third node already, since two did not reach one another.
    pub relayed: bool,
}

#[derive(Debug, PartialEq)]
pub enum Effect<R> {
    Pass {
        shard: Shard,
        asked: Asked<R>,
    },
    /// `relays` may reach a peer that this node does not.
    Forward {
        to: PeerId,
        asked: Asked<R>,
        relays: Vec<PeerId>,
    },
    Passivate(ConversationId),
    Refuse(Option<R>, Refusal),
    /// Every shard stops where it is.
    StopShards,
}

pub struct Gateway {
    me: PeerId,
    active_max: usize,
    idle_after_ms: u64,
    view: View,
    closed: bool,
    /// When each was last asked for anything.
    residents: LruCache<ConversationId, u64>,
}

impl Gateway {
    pub fn new(me: PeerId, active_max: usize, idle_after_ms: u64) -> Self {
        Self { me, active_max, idle_after_ms, view: View::default(), closed: false, residents: LruCache::unbounded() }
    }

    /// The next newcomer sends somebody away.
    pub fn is_full(&self) -> bool {
        self.residents.len() >= self.active_max
    }

    pub fn residents(&self) -> usize {
        self.residents.len()
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn is_member(&self) -> bool {
        self.view.has(&self.me)
    }

    pub fn is_leaving(&self) -> bool {
        self.closed || self.view.status(&self.me) == Some(MemberStatus::Leaving)
    }

    /// The node has another incarnation from now on.
    pub fn reborn(&mut self, me: PeerId) {
        self.me = me;
    }

    pub fn decide<R>(&mut self, now_ms: u64, input: Input<R>) -> Vec<Effect<R>> {
        match input {
            Input::Ask { asked, heavy } => self.ask(now_ms, asked, heavy),
            Input::Entered(conversation) => {
                // It was asked for before the end of its last stay was heard of.
                if !self.residents.contains(&conversation) {
                    self.residents.put(conversation, now_ms);
                }
                Vec::new()
            }
            Input::Used(conversations) => {
                for conversation in conversations {
                    if let Some(used_ms) = self.residents.get_mut(&conversation) {
                        *used_ms = now_ms;
                    }
                }
                Vec::new()
            }
            Input::Left(conversation) => {
                self.residents.pop(&conversation);
                Vec::new()
            }
            Input::ShardGone(shard) => {
                let lost: Vec<_> = self.residents.iter().map(|(id, _)| *id).filter(|id| id.shard() == shard).collect();
                for conversation in lost {
                    self.residents.pop(&conversation);
                }
                Vec::new()
            }
            Input::View(view) => self.view_changed(now_ms, view),
            Input::DropAll => {
                self.residents.clear();
                vec![Effect::StopShards]
            }
            Input::Close => {
                self.closed = true;
                Vec::new()
            }
            Input::Tick => self.passivate(now_ms),
        }
    }

    fn ask<R>(&mut self, now_ms: u64, asked: Asked<R>, heavy: bool) -> Vec<Effect<R>> {
        if let Some(to) = asked.direct.clone().filter(|to| *to != self.me) {
            return vec![self.forward(to, Asked { hops: HOPS_MAX, direct: None, ..asked })];
        }
        let shard = asked.conversation.shard();
        let known = self.residents.contains(&asked.conversation);
        let owner = self.view.owner(shard);
        // While everything is given away, what runs here may still be watched and stopped.
        let finishing = known && matches!(asked.request, Request::Watch { .. } | Request::Cancel { .. });
        let mine = owner.as_ref() == Some(&self.me) || finishing;
        if !mine && asked.hops < HOPS_MAX && asked.direct.is_none() {
            return vec![match owner {
                Some(to) => self.forward(to, Asked { hops: asked.hops + 1, ..asked }),
                None => Effect::Refuse(asked.reply, Refusal::Moved),
            }];
        }
        // A node that is in no view owns nothing, whoever thinks so.
        if !self.is_member() || (self.closed && !finishing) {
            return vec![Effect::Refuse(asked.reply, Refusal::Moved)];
        }
        if known && asked.request == Request::Settle {
            // Whatever is open there is in good hands.
            return Vec::new();
        }
        if !known && self.residents.len() >= self.active_max + OVER_THE_LIMIT {
            let refusal = Refusal::Busy { what: Full::Memory, retry_after_ms: 1_000 };
            return vec![Effect::Refuse(asked.reply, refusal)];
        }
        self.residents.put(asked.conversation, now_ms);
        let mut effects = vec![Effect::Pass { shard, asked }];
        let over = if heavy { PASSIVATIONS_AT_ONCE } else { self.residents.len().saturating_sub(self.active_max) };
        for _ in 0..over.min(PASSIVATIONS_AT_ONCE) {
            if let Some(oldest) = self.residents.peek_lru().map(|(id, _)| *id) {
                // It is asked once; if it is busy it comes up again when the others have been asked.
                self.residents.promote(&oldest);
                effects.push(Effect::Passivate(oldest));
            }
        }
        effects
    }

    fn forward<R>(&self, to: PeerId, asked: Asked<R>) -> Effect<R> {
        let relays = if asked.relayed { Vec::new() } else { self.relays(&to) };
        Effect::Forward { to, asked, relays }
    }

    fn relays(&self, to: &PeerId) -> Vec<PeerId> {
        let up = self.view.members().iter().filter(|(_, member)| member.status == MemberStatus::Up);
        let id = up.map(|(name, member)| PeerId { name: name.clone(), incarnation: member.incarnation });
        id.filter(|id| id != to && *id != self.me).take(RELAYS_MAX).collect()
    }

    /// Who lost their place here go as soon as nothing of them is open.
    fn view_changed<R>(&mut self, now_ms: u64, view: View) -> Vec<Effect<R>> {
        self.view = view;
        self.passivate(now_ms)
    }

    fn passivate<R>(&mut self, now_ms: u64) -> Vec<Effect<R>> {
        let idle = |used_ms: u64| used_ms.saturating_add(self.idle_after_ms) <= now_ms;
        let strange = |id: &ConversationId| self.view.owner(id.shard()).as_ref() != Some(&self.me);
        let going = self.residents.iter().rev().filter(|(id, used_ms)| idle(**used_ms) || strange(id));
        let going: Vec<ConversationId> = going.map(|(id, _)| *id).take(PASSIVATED_AT_ONCE).collect();
        for conversation in &going {
            self.residents.put(*conversation, now_ms);
        }
        going.into_iter().map(Effect::Passivate).collect()
    }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::view::{Row, ViewTable};

    use super::*;

    fn id(n: u8) -> ConversationId {
        ConversationId([n; 16])
    }

    fn me() -> PeerId {
        PeerId { name: "a".into(), incarnation: 1 }
    }

    fn gateway(active_max: usize) -> Gateway {
        let mut gateway = Gateway::new(me(), active_max, 1_000);
        with_status(&mut gateway, MemberStatus::Up);
        gateway
    }

    fn with_status(gateway: &mut Gateway, status: MemberStatus) {
        gateway.decide::<()>(0, Input::View(view(&[("a", status)])));
    }

    fn view(members: &[(&str, MemberStatus)]) -> View {
        let row = |status| Row { incarnation: 1, address: String::new(), status, format: 1 };
        let rows = members.iter().map(|(name, status)| (String::from(*name), row(*status))).collect();
        View::new(&ViewTable { number: 1, rows })
    }

    fn asked(conversation: ConversationId, request: Request) -> Asked<()> {
        Asked { conversation, request, reply: Some(()), hops: 0, direct: None, relayed: false }
    }

    fn ask(gateway: &mut Gateway, now_ms: u64, n: u8) -> Vec<ConversationId> {
        passivated(gateway.decide(now_ms, wake(id(n))))
    }

    fn wake(conversation: ConversationId) -> Input<()> {
        Input::Ask { asked: asked(conversation, Request::Wake), heavy: false }
    }

    fn passivated(effects: Vec<Effect<()>>) -> Vec<ConversationId> {
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Passivate(conversation) => Some(conversation),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_least_recently_used_leaves_for_the_newcomer() {
        let mut gateway = gateway(2);
        assert_eq!(ask(&mut gateway, 0, 1), []);
        assert_eq!(ask(&mut gateway, 1, 2), []);
        assert_eq!(ask(&mut gateway, 2, 1), []);
        assert_eq!(ask(&mut gateway, 3, 3)[0], id(2));
        gateway.decide::<()>(4, Input::Left(id(2)));
        assert_eq!(gateway.residents(), 2);
    }

    #[test]
    fn a_busy_one_is_not_asked_again_before_the_others() {
        let mut gateway = gateway(1);
        ask(&mut gateway, 0, 1);
        let first = ask(&mut gateway, 1, 2);
        let second = ask(&mut gateway, 2, 3);
        assert_eq!((first, second), (vec![id(1)], vec![id(2), id(1)]));
    }

    #[test]
    fn too_many_bytes_send_the_least_recently_used_away_too() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        ask(&mut gateway, 1, 2);
        let heavy = Input::Ask { asked: asked(id(3), Request::Wake), heavy: true };
        assert_eq!(passivated(gateway.decide(2, heavy)), [id(1), id(2)]);
    }

    #[test]
    fn who_comes_back_before_its_leaving_is_heard_of_stands_in_the_line() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        ask(&mut gateway, 5, 1);
        // Of its last stay, which ended before the second request came to the shard.
        gateway.decide::<()>(6, Input::Left(id(1)));
        gateway.decide::<()>(7, Input::Entered(id(1)));
        assert_eq!(gateway.decide::<()>(1_007, Input::Tick), [Effect::Passivate(id(1))]);
    }

    #[test]
    fn who_was_asked_past_the_gateway_is_in_use() {
        let mut gateway = gateway(2);
        ask(&mut gateway, 0, 1);
        ask(&mut gateway, 1, 2);
        assert!(gateway.is_full());
        assert_eq!(gateway.decide::<()>(900, Input::Used(vec![id(1), id(9)])), []);
        assert_eq!(gateway.residents(), 2, "who is gone does not come back by it");
        assert_eq!(gateway.decide::<()>(1_001, Input::Tick), [Effect::Passivate(id(2))]);
        assert_eq!(ask(&mut gateway, 1_002, 3), [id(1)], "the other was asked to go just now");
    }

    #[test]
    fn idle_ones_leave_with_the_tick() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        ask(&mut gateway, 900, 2);
        assert_eq!(gateway.decide::<()>(1_000, Input::Tick), [Effect::Passivate(id(1))]);
        assert_eq!(gateway.decide::<()>(1_001, Input::Tick), []);
    }

    #[test]
    fn what_is_in_memory_is_neither_settled_nor_kept_by_the_wish() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        let settle = |n| Input::Ask { asked: asked(id(n), Request::Settle), heavy: false };
        assert_eq!(gateway.decide(900, settle(1)), []);
        assert_eq!(gateway.decide(900, settle(2)).len(), 1);
        assert_eq!(gateway.decide::<()>(1_000, Input::Tick), [Effect::Passivate(id(1))]);
    }

    #[test]
    fn memory_full_of_busy_ones_refuses_a_newcomer_and_no_one_else() {
        let mut gateway = gateway(0);
        for n in 0..OVER_THE_LIMIT as u32 {
            let mut bytes = [9; 16];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            gateway.decide(0, wake(ConversationId(bytes)));
        }
        let refused = |effects: Vec<Effect<()>>| matches!(effects[0], Effect::Refuse(_, Refusal::Busy { .. }));
        assert!(refused(gateway.decide(1, wake(id(1)))));
        let known = ConversationId([0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert!(!refused(gateway.decide(1, wake(known))));
    }

    #[test]
    fn a_node_about_to_end_refuses_turns_and_still_shows_what_runs() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        gateway.decide::<()>(0, Input::Close);
        let refused = |effects: Vec<Effect<()>>| effects == [Effect::Refuse(Some(()), Refusal::Moved)];
        assert!(refused(gateway.decide(1, wake(id(1)))));
        let caller = crate::request::Caller { tenant: "t".into(), subject: "s".into() };
        let cancel = Input::Ask { asked: asked(id(1), Request::Cancel { caller, turn: 0 }), heavy: false };
        assert!(!refused(gateway.decide(1, cancel)));
    }

    #[test]
    fn what_another_node_owns_goes_there_until_it_was_passed_on_often_enough() {
        let mut gateway = Gateway::new(me(), 10, 1_000);
        gateway.decide::<()>(0, Input::View(view(&[("a", MemberStatus::Joining), ("b", MemberStatus::Up)])));
        let b = PeerId { name: "b".into(), incarnation: 1 };
        for hops in 0..HOPS_MAX {
            let on_its_way = Asked { hops, ..asked(id(1), Request::Wake) };
            let passed_on = Asked { hops: hops + 1, ..asked(id(1), Request::Wake) };
            let effects = gateway.decide(0, Input::Ask { asked: on_its_way, heavy: false });
            assert_eq!(effects, [Effect::Forward { to: b.clone(), asked: passed_on, relays: Vec::new() }]);
        }
        let last = Asked { hops: HOPS_MAX, ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: last, heavy: false });
        assert!(matches!(effects[0], Effect::Pass { .. }));
    }

    #[test]
    fn an_open_turn_is_asked_where_it_is() {
        let mut gateway = gateway(10);
        let b = PeerId { name: "b".into(), incarnation: 1 };
        let direct = Asked { direct: Some(b.clone()), ..asked(id(1), Request::Wake) };
        let expected = Asked { hops: HOPS_MAX, ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: direct, heavy: false });
        assert_eq!(effects, [Effect::Forward { to: b, asked: expected, relays: Vec::new() }]);
    }

    #[test]
    fn a_third_node_may_reach_whom_this_one_does_not_and_asks_no_fourth() {
        let mut gateway = gateway(10);
        let id_of = |name: &str| PeerId { name: name.into(), incarnation: 1 };
        gateway.decide::<()>(
            0,
            Input::View(view(&[("a", MemberStatus::Up), ("b", MemberStatus::Up), ("c", MemberStatus::Up)])),
        );
        let direct = Asked { direct: Some(id_of("b")), ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: direct, heavy: false });
        assert!(matches!(&effects[0], Effect::Forward { relays, .. } if *relays == [id_of("c")]), "{effects:?}");
        let relayed = Asked { direct: Some(id_of("b")), relayed: true, ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: relayed, heavy: false });
        assert!(matches!(&effects[0], Effect::Forward { relays, .. } if relays.is_empty()), "{effects:?}");
    }

    #[test]
    fn a_request_that_is_to_be_served_here_is() {
        let mut gateway = Gateway::new(me(), 10, 1_000);
        gateway.decide::<()>(0, Input::View(view(&[("a", MemberStatus::Leaving), ("b", MemberStatus::Up)])));
        let here = Asked { direct: Some(me()), ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: here, heavy: false });
        assert!(matches!(effects[0], Effect::Pass { .. }));
    }

    #[test]
    fn a_node_that_is_in_no_view_serves_nobody() {
        let mut gateway = Gateway::new(me(), 10, 1_000);
        let last = Asked { hops: HOPS_MAX, ..asked(id(1), Request::Wake) };
        let effects = gateway.decide(0, Input::Ask { asked: last, heavy: false });
        assert_eq!(effects, [Effect::Refuse(Some(()), Refusal::Moved)]);
    }

    #[test]
    fn who_lost_their_place_leave_at_once() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        let both = view(&[("a", MemberStatus::Leaving), ("b", MemberStatus::Up)]);
        assert_eq!(gateway.decide::<()>(1, Input::View(both)), [Effect::Passivate(id(1))]);
    }
}
