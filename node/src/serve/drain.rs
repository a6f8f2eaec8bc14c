//! How a node stops, decided: which step comes after which event. Knows no clock, socket or store; `serve` carries it
//! out.
//!
//! Balancers learn only by and by that a node goes. So it first says so (readiness) and goes on serving for a while,
//! each answer closing its connection; only then it closes the listener, lets what was just accepted arrive, and
//! finishes what is in flight. A shorter way loses requests that were already sent.

/// A node's life, from the moment it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// Not ready any more, and serving on until balancers have noticed.
    Lagging,
    /// The listener is closed; requests on connections just accepted are still on their way.
    Lingering,
    /// Answers and streams in flight run to their end.
    Finishing,
    /// The conversations are put away; what is still open is handed off.
    HandingOff,
    Flushing,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Signal,
    /// The conversations' actors ended by themselves.
    Fault,
    TimeOver(Wait),
    /// No connection is open.
    ConnectionsFinished,
    HandedOff,
    Flushed,
    /// What was acknowledged is durable all the same; the next start has more to read.
    NotFlushed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Lag,
    Linger,
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `/readyz` answers 503, and every answer closes its connection.
    LeaveBalancers,
    Start(Wait),
    CloseListener,
    /// Idle connections are closed, the others with their last answer.
    FinishConnections,
    HandOff,
    /// Whoever is still connected resumes elsewhere.
    AbortConnections,
    Flush,
    Exit(u8),
}

#[derive(Debug)]
pub struct Drain {
    phase: Phase,
}

impl Default for Drain {
    fn default() -> Self {
        Self { phase: Phase::Serving }
    }
}

impl Drain {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn decide(&mut self, event: Event) -> Vec<Effect> {
        use Effect::{AbortConnections, CloseListener, Exit, FinishConnections, Flush, HandOff, LeaveBalancers, Start};
        use Event::{ConnectionsFinished, Fault, Flushed, HandedOff, NotFlushed, Signal, TimeOver};
        use Phase::{Ended, Finishing, Flushing, HandingOff, Lagging, Lingering, Serving};
        let (next, effects) = match (self.phase, event) {
            (Serving, Signal) => (Lagging, vec![LeaveBalancers, Start(Wait::Lag)]),
            (Lagging, TimeOver(Wait::Lag)) => (Lingering, vec![CloseListener, Start(Wait::Linger)]),
            (Lingering, TimeOver(Wait::Linger)) => (Finishing, vec![FinishConnections, Start(Wait::Finish)]),
            (Finishing, ConnectionsFinished | TimeOver(Wait::Finish)) => (HandingOff, vec![HandOff]),
            (HandingOff, HandedOff) => (Flushing, vec![AbortConnections, Flush]),
            (Flushing, Flushed) => (Ended, vec![Exit(0)]),
            (Flushing, NotFlushed) => (Ended, vec![Exit(1)]),
            // Whoever signals twice does not want to wait.
            (Lagging | Lingering | Finishing | HandingOff | Flushing, Signal) => (Ended, vec![Exit(1)]),
            // Without them there is nothing to serve, and nothing to hand off.
            (Serving | Lagging | Lingering | Finishing | HandingOff | Flushing, Fault) => (Ended, vec![Exit(1)]),
            // Connections ended before the time did, or only when they were aborted: the other comes late.
            (late @ (HandingOff | Flushing), ConnectionsFinished | TimeOver(Wait::Finish)) => (late, Vec::new()),
            // What was started goes on until the program is gone.
            (Ended, Signal | Fault | TimeOver(_) | ConnectionsFinished | HandedOff | Flushed | NotFlushed) => {
                (Ended, Vec::new())
            }
            (Serving, TimeOver(_) | ConnectionsFinished | HandedOff | Flushed | NotFlushed)
            | (
                Lagging,
                TimeOver(Wait::Linger | Wait::Finish) | ConnectionsFinished | HandedOff | Flushed | NotFlushed,
            )
            | (
                Lingering,
                TimeOver(Wait::Lag | Wait::Finish) | ConnectionsFinished | HandedOff | Flushed | NotFlushed,
            )
            | (Finishing, TimeOver(Wait::Lag | Wait::Linger) | HandedOff | Flushed | NotFlushed)
            | (HandingOff, TimeOver(Wait::Lag | Wait::Linger) | Flushed | NotFlushed)
            | (Flushing, TimeOver(Wait::Lag | Wait::Linger) | HandedOff) => {
                unreachable!("{event:?} while {:?}: it was not started, or has ended already", self.phase)
            }
        };
        self.phase = next;
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: an event, `->`, the effects.
    fn check(script: &str) {
        let mut drain = Drain::default();
        for line in script.lines().map(str::trim) {
            let (event, effects) = line.split_once("->").unwrap();
            let effects: Vec<Effect> =
                effects.split(',').map(str::trim).filter(|word| !word.is_empty()).map(effect).collect();
            assert_eq!(drain.decide(self::event(event.trim())), effects, "{line}");
        }
    }

    fn event(words: &str) -> Event {
        match words {
            "signal" => Event::Signal,
            "fault" => Event::Fault,
            "lag over" => Event::TimeOver(Wait::Lag),
            "linger over" => Event::TimeOver(Wait::Linger),
            "time over" => Event::TimeOver(Wait::Finish),
            "connections finished" => Event::ConnectionsFinished,
            "handed off" => Event::HandedOff,
            "flushed" => Event::Flushed,
            "not flushed" => Event::NotFlushed,
            other => panic!("{other}"),
        }
    }

    fn effect(words: &str) -> Effect {
        match words {
            "leave balancers" => Effect::LeaveBalancers,
            "wait lag" => Effect::Start(Wait::Lag),
            "wait linger" => Effect::Start(Wait::Linger),
            "wait finish" => Effect::Start(Wait::Finish),
            "close listener" => Effect::CloseListener,
            "finish connections" => Effect::FinishConnections,
            "hand off" => Effect::HandOff,
            "abort connections" => Effect::AbortConnections,
            "flush" => Effect::Flush,
            "exit 0" => Effect::Exit(0),
            "exit 1" => Effect::Exit(1),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_node_that_has_time_finishes_everything_and_exits_clean() {
        check(
            "signal               -> leave balancers, wait lag
             lag over             -> close listener, wait linger
             linger over          -> finish connections, wait finish
             connections finished -> hand off
             handed off           -> abort connections, flush
             flushed              -> exit 0",
        );
    }

    #[test]
    fn what_outlasts_the_time_is_handed_off_and_that_is_clean_too() {
        check(
            "signal               -> leave balancers, wait lag
             lag over             -> close listener, wait linger
             linger over          -> finish connections, wait finish
             time over            -> hand off
             connections finished ->
             handed off           -> abort connections, flush
             flushed              -> exit 0",
        );
    }

    #[test]
    fn the_time_to_finish_may_run_out_behind_the_last_connection() {
        check(
            "signal               -> leave balancers, wait lag
             lag over             -> close listener, wait linger
             linger over          -> finish connections, wait finish
             connections finished -> hand off
             time over            ->
             handed off           -> abort connections, flush
             time over            ->
             flushed              -> exit 0
             time over            ->",
        );
    }

    #[test]
    fn a_store_that_cannot_be_flushed_is_no_clean_end() {
        check(
            "signal               -> leave balancers, wait lag
             lag over             -> close listener, wait linger
             linger over          -> finish connections, wait finish
             connections finished -> hand off
             handed off           -> abort connections, flush
             not flushed          -> exit 1",
        );
    }

    #[test]
    fn a_node_whose_conversations_are_gone_ends_at_once() {
        check("fault -> exit 1");
        check(
            "signal -> leave balancers, wait lag
             fault  -> exit 1",
        );
    }

    #[test]
    fn a_second_signal_ends_it_at_once_wherever_it_is() {
        let life = [
            "lag over -> close listener, wait linger",
            "linger over -> finish connections, wait finish",
            "time over -> hand off",
            "handed off -> abort connections, flush",
        ];
        for lived in 0..=life.len() {
            let mut script = vec!["signal -> leave balancers, wait lag"];
            script.extend(&life[..lived]);
            script.extend(["signal -> exit 1", "signal ->"]);
            check(&script.join("\n"));
        }
    }
}
