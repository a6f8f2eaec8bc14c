//! Where a request goes, and who must leave memory for it. Pure: `now_ms` is monotonic and passed in.
//!
//! All that is in memory on this node stands in one line, least recently used first. A passivation is a wish: who is
//! busy stays, and stands at the end of the line again.

use klatch_protocol::{ConversationId, Shard};
use lru::LruCache;

use crate::membership::decide::{Status, View};
use crate::request::{Refusal, Request};

/// While everyone in memory is busy the limit may be passed by so much before requests are refused.
const OVER_THE_LIMIT: usize = 1_024;

/// Passivations asked for at one request: more than one, so that a limit that was passed is reached again.
const PASSIVATIONS_AT_ONCE: usize = 2;

/// Idle conversations passivated at one tick, so that a tick stays short.
const IDLE_AT_ONCE: usize = 4_096;

#[derive(Debug)]
pub enum Input<R> {
    Ask {
        conversation: ConversationId,
        request: Request,
        reply: Option<R>,
        /// The conversations in memory hold more bytes than they may.
        heavy: bool,
    },
    Left(ConversationId),
    ShardGone(Shard),
    View(View),
    /// Now and then: who was idle for too long goes.
    Tick,
}

#[derive(Debug, PartialEq)]
pub enum Effect<R> {
    Pass { shard: Shard, conversation: ConversationId, request: Request, reply: Option<R> },
    Passivate(ConversationId),
    Refuse(Option<R>, Refusal),
}

pub struct Gateway {
    node: String,
    active_max: usize,
    idle_after_ms: u64,
    view: View,
    /// When each was last asked for anything.
    residents: LruCache<ConversationId, u64>,
}

impl Gateway {
    pub fn new(node: String, active_max: usize, idle_after_ms: u64) -> Self {
        Self { node, active_max, idle_after_ms, view: View::default(), residents: LruCache::unbounded() }
    }

    pub fn residents(&self) -> usize {
        self.residents.len()
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn is_leaving(&self) -> bool {
        self.view.members.get(&self.node).is_some_and(|me| me.status == Status::Leaving)
    }

    pub fn decide<R>(&mut self, now_ms: u64, input: Input<R>) -> Vec<Effect<R>> {
        match input {
            Input::Ask { conversation, request, reply, heavy } => self.ask(now_ms, conversation, request, reply, heavy),
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
            Input::View(view) => {
                self.view = view;
                Vec::new()
            }
            Input::Tick => self.passivate_idle(now_ms),
        }
    }

    fn ask<R>(
        &mut self,
        now_ms: u64,
        conversation: ConversationId,
        request: Request,
        reply: Option<R>,
        heavy: bool,
    ) -> Vec<Effect<R>> {
        let shard = conversation.shard();
        let known = self.residents.contains(&conversation);
        // While everything is given away, what runs here may still be watched and stopped.
        let finishing = known && matches!(request, Request::Watch { .. } | Request::Cancel { .. });
        if self.view.owner(shard) != Some(self.node.as_str()) && !finishing {
            return vec![Effect::Refuse(reply, Refusal::Moved)];
        }
        if !known && self.residents.len() >= self.active_max + OVER_THE_LIMIT {
            return vec![Effect::Refuse(reply, Refusal::Busy { what: "the node's memory", retry_after_ms: 1_000 })];
        }
        self.residents.put(conversation, now_ms);
        let mut effects = vec![Effect::Pass { shard, conversation, request, reply }];
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

    fn passivate_idle<R>(&mut self, now_ms: u64) -> Vec<Effect<R>> {
        let idle_since = |used_ms: u64| used_ms.saturating_add(self.idle_after_ms) <= now_ms;
        let idle = self.residents.iter().rev().filter(|(_, used_ms)| idle_since(**used_ms));
        let idle: Vec<ConversationId> = idle.map(|(id, _)| *id).take(IDLE_AT_ONCE).collect();
        for conversation in &idle {
            self.residents.put(*conversation, now_ms);
        }
        idle.into_iter().map(Effect::Passivate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::decide::Member;

    fn id(n: u8) -> ConversationId {
        ConversationId([n; 16])
    }

    fn gateway(active_max: usize) -> Gateway {
        let mut gateway = Gateway::new("a".into(), active_max, 1_000);
        with_status(&mut gateway, Status::Up);
        gateway
    }

    fn with_status(gateway: &mut Gateway, status: Status) {
        let view = gateway.view.with("a", Member { incarnation: 1, status });
        gateway.decide::<()>(0, Input::View(view));
    }

    fn ask(gateway: &mut Gateway, now_ms: u64, n: u8) -> Vec<ConversationId> {
        passivated(gateway.decide(now_ms, wake(id(n))))
    }

    fn wake(conversation: ConversationId) -> Input<()> {
        Input::Ask { conversation, request: Request::Wake, reply: Some(()), heavy: false }
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
        let heavy = Input::Ask { conversation: id(3), request: Request::Wake, reply: Some(()), heavy: true };
        assert_eq!(passivated(gateway.decide(2, heavy)), [id(1), id(2)]);
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
    fn a_leaving_node_refuses_turns_and_still_shows_what_runs() {
        let mut gateway = gateway(10);
        ask(&mut gateway, 0, 1);
        with_status(&mut gateway, Status::Leaving);
        let refused = |effects: Vec<Effect<()>>| effects == [Effect::Refuse(Some(()), Refusal::Moved)];
        assert!(refused(gateway.decide(1, wake(id(1)))));
        let caller = crate::request::Caller { tenant: "t".into(), subject: "s".into() };
        let request = Request::Cancel { caller, turn: 0 };
        let cancel = Input::Ask { conversation: id(1), request, reply: Some(()), heavy: false };
        assert!(!refused(gateway.decide(1, cancel)));
    }
}
